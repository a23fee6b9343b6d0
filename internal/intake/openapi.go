package intake

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"sync"

	"go.yaml.in/yaml/v3"
)

//go:embed openapi.yaml
var openapiYAML []byte

// OpenAPI returns the OpenAPI 3.1 document of the HTTP door as JSON. The checks
// of the envelope use the schema that stands in it, so that document and check
// cannot differ. The bytes are the caller's to read only.
var OpenAPI = sync.OnceValue(func() []byte {
	var doc any
	if err := yaml.Unmarshal(openapiYAML, &doc); err != nil {
		panic(fmt.Sprintf("intake: openapi.yaml: %v", err)) // it is compiled in; a test reads it
	}
	b, err := json.Marshal(doc)
	if err != nil {
		panic(fmt.Sprintf("intake: openapi.yaml: %v", err))
	}
	return b
})
