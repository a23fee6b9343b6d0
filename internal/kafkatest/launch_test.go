package kafkatest

import (
	"strings"
	"testing"
)

func TestLaunchSaysWhyItFailed(t *testing.T) {
	if testing.Short() {
		t.Skip("starts Java")
	}
	need(t, "java")
	_, _, err := Launch(t.TempDir(), JVM("-XX:NoSuchFlag=1"))
	if err == nil || !strings.Contains(err.Error(), "NoSuchFlag") {
		t.Fatalf("a flag Java does not know: %v", err)
	}
}
