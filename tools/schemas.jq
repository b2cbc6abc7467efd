# Converts Kubernetes' OpenAPI document to JSON schemas for kubeconform.
# Prints one object for each schema: the name of its file, and the schema.
# The schemas are strict: an unknown field is an error.
def strict: walk(
  if type == "object" and (.["$ref"]? | type) == "string" then {"$ref": (.["$ref"] | sub("^#"; "_definitions.json#"))}
  elif type == "object" and .format? == "int-or-string" then {oneOf: [{type: "string"}, {type: "integer"}]}
  elif type == "object" and (.properties? | type) == "object" and (has("additionalProperties") | not)
  then . + {additionalProperties: false}
  else . end);
def file: (.group | split(".")[0] // "") as $group
  | (.kind | ascii_downcase) + (if $group == "" then "" else "-" + $group end) + "-" + .version + ".json";
.definitions
| .["io.k8s.apimachinery.pkg.api.resource.Quantity"] = {oneOf: [{type: "string"}, {type: "number"}]}
| (to_entries[] as $entry | $entry.value["x-kubernetes-group-version-kind"]? // [] | select(length == 1)[]
  | {file: file, schema: {"$ref": "_definitions.json#/definitions/\($entry.key)"}}),
  {file: "_definitions.json", schema: {definitions: strict}}
