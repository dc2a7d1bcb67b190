// GraphQL over HTTP as its working group audits servers: one line of JSON for each sentence.
import { serverAudits } from "graphql-http";

for (const audit of serverAudits({ url: process.env.URL })) {
  const result = await audit.fn();
  const reason = result.status === "ok" ? null : result.reason;
  console.log(JSON.stringify({ id: audit.id, sentence: audit.name, reason }));
}
