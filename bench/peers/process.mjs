// One process of the bench: its settings, the word `ready`, and its end on SIGTERM.

/** A variable of the environment. Throws when it is missing. */
export function setting(name) {
  const value = process.env[name];
  if (!value) throw new Error(`${name} is not set`);
  return value;
}

/** Say that it serves, and end cleanly when told to. `close`: async functions, called in order. */
export function ready(...close) {
  process.once("SIGTERM", async () => {
    try {
      for (const one of close) await one();
      process.exit(0);
    } catch (error) {
      console.error(error);
      process.exit(1);
    }
  });
  console.log("ready");
}

/** Listen on 127.0.0.1; answers when it does. */
export function listen(server, port) {
  return new Promise((resolve, reject) => {
    server.once("error", reject);
    server.listen(port, "127.0.0.1", resolve);
  });
}

/** Take no more requests; answers when those that run are answered. */
export function close(server) {
  return new Promise((resolve) => {
    server.close(resolve);
    server.closeIdleConnections();
    setTimeout(() => server.closeAllConnections(), 2000).unref();
  });
}
