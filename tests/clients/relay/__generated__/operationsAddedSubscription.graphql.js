/**
 * @generated SignedSource<<67b2a06daaa0dc21713c41e7750ec6d1>>
 * @lightSyntaxTransform
 */

/* eslint-disable */

'use strict';

var node = (function(){
var v0 = [
  {
    "alias": null,
    "args": null,
    "concreteType": "NotificationEdge",
    "kind": "LinkedField",
    "name": "notificationAdded",
    "plural": false,
    "selections": [
      {
        "alias": null,
        "args": null,
        "kind": "ScalarField",
        "name": "cursor",
        "storageKey": null
      },
      {
        "alias": null,
        "args": null,
        "concreteType": "Notification",
        "kind": "LinkedField",
        "name": "node",
        "plural": false,
        "selections": [
          {
            "alias": null,
            "args": null,
            "kind": "ScalarField",
            "name": "id",
            "storageKey": null
          },
          {
            "alias": null,
            "args": null,
            "kind": "ScalarField",
            "name": "title",
            "storageKey": null
          }
        ],
        "storageKey": null
      }
    ],
    "storageKey": null
  }
];
return {
  "fragment": {
    "argumentDefinitions": [],
    "kind": "Fragment",
    "metadata": null,
    "name": "operationsAddedSubscription",
    "selections": (v0/*:: as any*/),
    "type": "Subscription",
    "abstractKey": null
  },
  "kind": "Request",
  "operation": {
    "argumentDefinitions": [],
    "kind": "Operation",
    "name": "operationsAddedSubscription",
    "selections": (v0/*:: as any*/)
  },
  "params": {
    "cacheID": "0c4ea82cde3b39612506fbce81aa819b",
    "id": null,
    "metadata": {},
    "name": "operationsAddedSubscription",
    "operationKind": "subscription",
    "text": "subscription operationsAddedSubscription {\n  notificationAdded {\n    cursor\n    node {\n      id\n      title\n    }\n  }\n}\n"
  }
};
})();

node.hash = "4358186d6be7ab4a1d3d3c1eb00e20d5";

export default node;
