// Starts GraphiQL on this page's own URL. A file, not an inline script: the page's
// Content-Security-Policy runs nothing inline. Written without JSX: there is no build step.

import * as shop from "/static/shared/session.js";

(() => {
  const RENEW_BEFORE = 30_000; // milliseconds before the access token of the shop's session ends
  const AGAIN = 5_000; // milliseconds until a renewal that failed is tried again

  const { createElement: h, useEffect, useMemo, useRef, useState } = React;
  const { demoAccounts, examples } = JSON.parse(
    document.getElementById("configuration").textContent,
  );

  async function post(parameters, headers) {
    let response;
    try {
      response = await fetch(location.pathname, {
        method: "POST",
        headers: {
          accept: "application/graphql-response+json, application/json",
          "content-type": "application/json",
          ...headers,
        },
        body: JSON.stringify(parameters),
      });
    } catch (error) {
      return { errors: [{ message: `The request could not be sent: ${error.message}` }] };
    }
    try {
      return await response.json();
    } catch {
      const status = `${response.status} ${response.statusText}`.trim();
      return { errors: [{ message: `The server answered ${status}, without a JSON body.` }] };
    }
  }

  function socketProblem(error) {
    if (Array.isArray(error)) return error; // the server's own GraphQL errors
    if (error instanceof CloseEvent) {
      const message = `The server closed the socket: ${error.reason || "no reason given"}.`;
      return { message, extensions: { closeCode: error.code } };
    }
    // A browser does not tell scripts why a socket was refused.
    return { message: error.message || "The socket could not be opened: refused or unreachable." };
  }

  // A client for each subscription, so that each connects with the headers of its own moment.
  function subscription(parameters, headers, showStream) {
    const url = new URL(location.pathname, location.href);
    url.protocol = location.protocol === "https:" ? "wss:" : "ws:";
    return {
      subscribe(sink) {
        let received = 0;
        showStream("Connecting…");
        const client = graphqlWs.createClient({
          url: url.href,
          connectionParams: headers,
          connectionAckWaitTimeout: 5000,
          retryAttempts: 0, // with the default of 5, a refusal stays hidden for 41 seconds
          on: { connected: () => showStream("Connected, waiting for events") },
        });
        const stop = client.subscribe(parameters, {
          next(result) {
            received += 1;
            showStream(`Live: ${received} ${received === 1 ? "event" : "events"}`);
            sink.next(result);
          },
          error(error) {
            showStream(null);
            sink.error(socketProblem(error));
          },
          complete() {
            showStream(null);
            sink.complete();
          },
        });
        return { unsubscribe: stop };
      },
    };
  }

  function isSubscription(document, operationName) {
    return Boolean(
      document?.definitions.some(
        (definition) =>
          definition.operation === "subscription" &&
          (!operationName || definition.name?.value === operationName),
      ),
    );
  }

  const LOGIN = `mutation Login($input: LoginInput!) {
    login(input: $input) { accessToken expiresAt user { name } }
  }`;

  async function signIn({ email, password }) {
    const { data, errors } = await post({
      query: LOGIN,
      operationName: "Login",
      variables: { input: { email, password } },
    });
    if (!data?.login) throw new Error(errors?.[0]?.message ?? "the server gave no reason");
    const { accessToken, expiresAt, user } = data.login;
    return { name: user.name, authorization: `Bearer ${accessToken}`, expiresAt };
  }

  function ofShop({ user, accessToken, expiresAt }) {
    return { name: user.name, authorization: `Bearer ${accessToken}`, expiresAt, isShops: true };
  }

  // Who is signed in in the shop is signed in here, until a button says otherwise. Who signs in
  // here is nowhere else.
  function useSessionOfShop(session, setSession, setProblem) {
    useEffect(() => {
      return shop.onChange((renewed, why) => {
        setSession((now) => (now && !now.isShops ? now : renewed && ofShop(renewed)));
        if (why) setProblem(why);
      });
    }, []);
    useEffect(() => {
      if (!shop.load() || (session && !session.isShops)) return undefined;
      const over = new AbortController();
      const renewed = () => {
        setProblem(null);
        setSession((now) => now ?? ofShop(shop.load()));
      };
      const failed = ({ code, message }) => {
        if (over.signal.aborted) return;
        setProblem(message);
        if (code !== "UNAUTHENTICATED") later(AGAIN);
      };
      const renew = () => shop.token().then(renewed, failed);
      const later = (time) => setTimeout(() => over.signal.aborted || renew(), time);
      if (!session) renew();
      else later(Math.max(Date.parse(session.expiresAt) - Date.now() - RENEW_BEFORE, RENEW_BEFORE));
      return () => over.abort();
    }, [session]);
  }

  /** What the Headers tab holds. Half-typed text is nothing: a run would refuse it. */
  function headersIn(text) {
    try {
      return Object.entries(JSON.parse(text) ?? {});
    } catch {
      return [];
    }
  }

  const isAuthorization = ([name]) => name.toLowerCase() === "authorization";

  // GraphiQL offers no way to write to a tab that is not on top. So each tab gets a new session's
  // header when it comes to the top, and only once: later edits are the user's, and what is
  // renewed by itself takes the place of its former self only.
  function useSessionInHeaders(session) {
    const { headerEditor, tabs, activeTabIndex, updateActiveTabValues } =
      GraphiQL.React.useEditorContext({ nonNull: true });
    const writtenInto = useRef(new Map());
    const tabId = tabs[activeTabIndex].id;
    useEffect(() => {
      const former = writtenInto.current.get(tabId);
      if (!session || !headerEditor || former === session) return;
      writtenInto.current.set(tabId, session);
      const headers = headersIn(headerEditor.getValue());
      const isRenewal = former?.isShops && session.isShops;
      if (isRenewal && headers.find(isAuthorization)?.[1] !== former.authorization) return;
      const others = headers.filter((header) => !isAuthorization(header));
      const all = { ...Object.fromEntries(others), Authorization: session.authorization };
      const text = JSON.stringify(all, null, 2);
      headerEditor.setValue(text);
      updateActiveTabValues({ headers: text });
    });
  }

  function clockTime(instant) {
    return new Date(instant).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
  }

  function sessionText(session) {
    if (session) return `Signed in as ${session.name} until ${clockTime(session.expiresAt)}`;
    if (demoAccounts.length) return "Not signed in: press a button, then run Page or Live.";
    return "Run Login, then put its accessToken into the Headers tab.";
  }

  function SessionBar({ stream }) {
    const [session, setSession] = useState(null);
    const [problem, setProblem] = useState(null);
    const [busy, setBusy] = useState(false);
    useSessionOfShop(session, setSession, setProblem);
    useSessionInHeaders(session);

    async function press(account) {
      setBusy(true);
      setProblem(null);
      try {
        setSession(await signIn(account));
      } catch (error) {
        setProblem(`Sign-in as ${account.name} failed: ${error.message}`);
      }
      setBusy(false);
    }

    const buttons = demoAccounts.map((account) =>
      h(
        "button",
        { key: account.email, type: "button", disabled: busy, onClick: () => press(account) },
        `Sign in as ${account.name}`,
      ),
    );
    const state = problem
      ? h("span", { className: "problem", role: "alert" }, problem)
      : h("span", { className: session && "signed-in", role: "status" }, sessionText(session));
    const bar = h(
      React.Fragment,
      null,
      buttons,
      state,
      stream && h("span", { className: "stream", role: "status" }, stream),
    );
    return ReactDOM.createPortal(bar, document.getElementById("session-bar"));
  }

  // GraphiQL keeps headers out of its stored tabs, but not out of its stored history.
  function withoutHeaders(history) {
    return JSON.stringify(JSON.parse(history), (key, value) =>
      key === "headers" ? undefined : value,
    );
  }

  // GraphiQL's own storage keys are the same on every site of an origin (localhost:8000):
  // without a prefix, another project's tabs would open here.
  const storage = {
    key: (name) => `tidings:${name}`,
    keys: () => Object.keys(localStorage).filter((key) => key.startsWith("tidings:")),
    getItem: (name) => localStorage.getItem(storage.key(name)),
    setItem(name, value) {
      const isHistory = name === "graphiql:queries" || name === "graphiql:favorites";
      localStorage.setItem(storage.key(name), isHistory ? withoutHeaders(value) : value);
    },
    removeItem: (name) => localStorage.removeItem(storage.key(name)),
    clear: () => storage.keys().forEach((key) => localStorage.removeItem(key)),
    get length() {
      return storage.keys().length;
    },
  };

  function App() {
    const [stream, setStream] = useState(null);
    const fixed = useMemo(
      () => ({
        plugins: [GraphiQLPluginExplorer.explorerPlugin()],
        fetcher: (parameters, { headers, documentAST } = {}) =>
          isSubscription(documentAST, parameters.operationName)
            ? subscription(parameters, headers, setStream)
            : post(parameters, headers),
      }),
      [],
    );
    return h(
      GraphiQL,
      {
        ...fixed,
        storage,
        defaultTabs: [{ query: examples }],
        defaultEditorToolsVisibility: "headers",
        shouldPersistHeaders: false,
      },
      h(SessionBar, { stream }),
    );
  }

  ReactDOM.createRoot(document.getElementById("graphiql")).render(h(App));
})();
