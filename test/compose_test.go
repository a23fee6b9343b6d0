package test

import (
	"testing"

	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/types"
)

func TestComposeX(t *testing.T) {
	p, err := loader.LoadWithContext(t.Context(), types.ConfigDetails{WorkingDir: repo, ConfigFiles: []types.ConfigFile{{Filename: repo + "/docker-compose.yml"}}, Environment: types.Mapping{}})
	t.Log(err, p)
}
