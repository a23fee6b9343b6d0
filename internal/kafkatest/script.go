package kafkatest

import (
	"crypto/rand"
	"errors"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/IBM/sarama"
)

// ACL is one permission.
type ACL struct {
	sarama.Resource
	sarama.Acl
}

// String says what the permission is for.
func (a ACL) String() string {
	return a.Operation.String() + " on " + strings.ToLower(a.ResourceType.String()) + " " + a.ResourceName
}

// Administrator does as the plain listener's user what an administrator does.
func (c *Cluster) Administrator(t testing.TB) sarama.ClusterAdmin {
	t.Helper()
	conf := sarama.NewConfig()
	conf.Version = sarama.V3_6_0_0
	admin, err := sarama.NewClusterAdmin(c.Addrs(), conf)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = admin.Close() })
	return admin
}

// SetPassword gives a user a password for SCRAM-SHA-512, in the place of the one it
// had.
func (c *Cluster) SetPassword(t testing.TB, user, password string) {
	t.Helper()
	if _, err := c.Administrator(t).UpsertUserScramCredentials([]sarama.AlterUserScramCredentialsUpsert{{
		Name: user, Mechanism: sarama.SCRAM_MECHANISM_SHA_512, Iterations: 4096, Salt: []byte(rand.Text()), Password: []byte(password)}}); err != nil {
		t.Fatal(err)
	}
}

// Commands returns the first shell script below a heading of a page.
func Commands(t testing.TB, page, heading string) string {
	t.Helper()
	b, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(b), "\n### "+heading+"\n")
	_, rest, ok2 := strings.Cut(rest, "```sh\n")
	script, _, ok3 := strings.Cut(rest, "```\n")
	if !ok || !ok2 || !ok3 {
		t.Fatalf("%s has no commands under %s", page, heading)
	}
	return script
}

// Carry carries out the lines of a shell script that begin with topics or acls:
// functions for kafka-topics --create and kafka-acls --add, with the flags
// --topic, --group, --operation, --partitions and --config. Topics get one
// replica, permissions the principal. It returns the permissions.
func Carry(t testing.TB, admin sarama.ClusterAdmin, script, principal string) []ACL {
	t.Helper()
	var out []ACL
	for line := range strings.Lines(strings.ReplaceAll(script, "\\\n", " ")) {
		words := strings.Fields(line)
		if len(words) == 0 || words[0] != "topics" && words[0] != "acls" || len(words)%2 != 1 {
			continue
		}
		flags := map[string][]string{}
		for i := 1; i < len(words); i += 2 {
			if !slices.Contains([]string{"--topic", "--group", "--operation", "--partitions", "--config"}, words[i]) {
				t.Fatalf("%s: unknown", words[i])
			}
			flags[words[i]] = append(flags[words[i]], words[i+1])
		}
		if words[0] == "topics" {
			makeTopic(t, admin, flags)
		} else {
			out = append(out, permissions(t, flags, principal)...)
		}
	}
	Grant(t, admin, out...)
	return out
}

// Grant gives permissions.
func Grant(t testing.TB, admin sarama.ClusterAdmin, acls ...ACL) {
	t.Helper()
	var all []*sarama.ResourceAcls
	for _, a := range acls {
		all = append(all, &sarama.ResourceAcls{Resource: a.Resource, Acls: []*sarama.Acl{&a.Acl}})
	}
	if len(all) == 0 {
		return
	}
	if err := admin.CreateACLs(all); err != nil {
		t.Fatal(err)
	}
}

func makeTopic(t testing.TB, admin sarama.ClusterAdmin, flags map[string][]string) {
	t.Helper()
	n, err := strconv.Atoi(strings.Join(flags["--partitions"], ""))
	if err != nil {
		t.Fatal(err)
	}
	d := &sarama.TopicDetail{NumPartitions: int32(n), ReplicationFactor: 1, ConfigEntries: map[string]*string{}}
	for _, kv := range flags["--config"] {
		k, v, _ := strings.Cut(kv, "=")
		d.ConfigEntries[k] = &v
	}
	for _, name := range flags["--topic"] {
		if err := admin.CreateTopic(name, d, false); err != nil && !errors.Is(err, sarama.ErrTopicAlreadyExists) {
			t.Fatal(err)
		}
	}
}

func permissions(t testing.TB, flags map[string][]string, principal string) []ACL {
	t.Helper()
	var out []ACL
	for _, op := range flags["--operation"] {
		var o sarama.AclOperation
		if err := o.UnmarshalText([]byte(op)); err != nil {
			t.Fatalf("--operation %s: %v", op, err)
		}
		for kind, names := range map[sarama.AclResourceType][]string{sarama.AclResourceTopic: flags["--topic"], sarama.AclResourceGroup: flags["--group"]} {
			for _, name := range names {
				out = append(out, ACL{sarama.Resource{ResourceType: kind, ResourceName: name, ResourcePatternType: sarama.AclPatternLiteral},
					sarama.Acl{Principal: principal, Host: "*", Operation: o, PermissionType: sarama.AclPermissionAllow}})
			}
		}
	}
	return out
}
