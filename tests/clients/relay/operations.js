// What relay-compiler makes `__generated__` from: npm run relay.
import { graphql } from "relay-runtime";

graphql`
  query operationsInboxQuery($first: Int!, $after: String) {
    notifications(first: $first, after: $after) @connection(key: "Inbox_notifications") {
      edges { cursor node { id title } }
      pageInfo { hasNextPage endCursor }
    }
  }
`;
graphql`
  mutation operationsSilenceMutation($input: PreferencesInput!) {
    updatePreferences(input: $input) { version }
  }
`;
graphql`
  subscription operationsAddedSubscription {
    notificationAdded { cursor node { id title } }
  }
`;
