/**
 * @generated SignedSource<<4108e63487d1dcb9f059af68c44b062b>>
 * @lightSyntaxTransform
 */

/* eslint-disable */

'use strict';

var node = (function(){
var v0 = [
  {
    "defaultValue": null,
    "kind": "LocalArgument",
    "name": "input"
  }
],
v1 = [
  {
    "alias": null,
    "args": [
      {
        "kind": "Variable",
        "name": "input",
        "variableName": "input"
      }
    ],
    "concreteType": "Preferences",
    "kind": "LinkedField",
    "name": "updatePreferences",
    "plural": false,
    "selections": [
      {
        "alias": null,
        "args": null,
        "kind": "ScalarField",
        "name": "version",
        "storageKey": null
      }
    ],
    "storageKey": null
  }
];
return {
  "fragment": {
    "argumentDefinitions": (v0/*:: as any*/),
    "kind": "Fragment",
    "metadata": null,
    "name": "operationsSilenceMutation",
    "selections": (v1/*:: as any*/),
    "type": "Mutation",
    "abstractKey": null
  },
  "kind": "Request",
  "operation": {
    "argumentDefinitions": (v0/*:: as any*/),
    "kind": "Operation",
    "name": "operationsSilenceMutation",
    "selections": (v1/*:: as any*/)
  },
  "params": {
    "cacheID": "c1b3301b586d70a8ce0b7e6f0359af50",
    "id": null,
    "metadata": {},
    "name": "operationsSilenceMutation",
    "operationKind": "mutation",
    "text": "mutation operationsSilenceMutation(\n  $input: PreferencesInput!\n) {\n  updatePreferences(input: $input) {\n    version\n  }\n}\n"
  }
};
})();

node.hash = "d4487204ba18c5b25beaf3b4c019fe52";

export default node;
