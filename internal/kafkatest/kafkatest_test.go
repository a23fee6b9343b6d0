package kafkatest

import (
	"net"
	"testing"
	"time"
)

func TestNodeServesAndStops(t *testing.T) {
	if testing.Short() {
		t.Skip("starts Apache Kafka")
	}
	c := Start(t)
	n := c.Nodes[0]
	n.Stop()
	if conn, err := net.DialTimeout("tcp", n.Addr, time.Second); err == nil {
		_ = conn.Close()
		t.Fatal("still serving after Stop")
	}
	n.Restart()
}
