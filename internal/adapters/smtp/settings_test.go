package smtp_test

import (
	"strings"
	"testing"

	"weiche/internal/adapters/smtp"
	"weiche/internal/config"
)

func TestSettings(t *testing.T) {
	const good = "host: mail.example\nfrom: weiche@land.example\nto: [bauamt@stadt.example]\n"
	for settings, want := range map[string]string{
		good: "",
		good + "tls: implicit\nport: 465\nhello: weiche.land.example\nusername: weiche\npassword_file: p\nlogin: xoauth2": "",
		good + "tls: none\nallow_networks: [private]":                                     "",
		good + "allow_unverified_certificate: true\nallow_networks: [private]":            "",
		good + "encrypt_to_file: a.pem\nsign_cert_file: b\nsign_key_file: c":              "",
		strings.Replace(good, "mail.example", "'2001:db8::25'", 1):                        "",
		strings.Replace(good, "weiche@", "o'neil+x_y.z@", 1):                              "",
		"from: weiche@land.example\nto: [b@stadt.example]":                                "needs host",
		"host: mail.example\nto: [b@stadt.example]":                                       "needs from",
		"host: mail.example\nfrom: weiche@land.example":                                   "needs to",
		strings.Replace(good, "[bauamt@stadt.example]", "[]", 1):                          "recipients",
		strings.Replace(good, "mail.example", "mail.example:25", 1):                       "without a port",
		strings.Replace(good, "mail.example", "smtp://mail.example", 1):                   "without a port",
		strings.Replace(good, "mail.example", "'mail .example'", 1):                       "without a port",
		strings.Replace(good, "weiche@land.example", "'Weiche <w@l.de>'", 1):              "from: an address",
		strings.Replace(good, "weiche@land.example", `"w@l.de>\r\nRCPT"`, 1):              "from: an address",
		strings.Replace(good, "weiche@land.example", "w@l.de@", 1):                        "from: an address",
		strings.Replace(good, "weiche@land.example", "w..x@l.de", 1):                      "from: an address",
		strings.Replace(good, "bauamt@stadt", "müller@stadt", 1):                          "number 1",
		strings.Replace(good, "[bauamt@stadt.example]", "[a@b.c, a@b.c]", 1):              "number 2",
		strings.Replace(good, "[bauamt", "["+strings.Repeat("a@b.c, ", 100)+"bauamt", 1):  "between 1 and 100",
		good + "bounces_to: nobody":                                                       "bounces_to: an address",
		good + "port: 65536":                                                              "no such port",
		good + "hello: 'x y'":                                                             "hello",
		good + "tls: tls":                                                                 "one of starttls",
		good + "login: cram-md5":                                                          "one of auto",
		good + "tls: none":                                                                "plain text is taken only",
		good + "tls: none\nallow_networks: [private]\nca_file: x":                         "nothing is verified",
		good + "allow_unverified_certificate: true":                                       "is taken only together",
		good + "tls: none\nallow_unverified_certificate: true\nallow_networks: [private]": "needs TLS",
		good + "username: weiche":                                                         "need each other",
		good + "username: \"a\\0b\"\npassword_file: p":                                    "control character",
		good + "password_file: p":                                                         "need each other",
		good + "sign_cert_file: p":                                                        "need each other",
		good + "max_message: 0KB":                                                         "max_message",
		good + "connect_timeout: 0s":                                                      "connect_timeout",
		good + "allow_networks: [privat]":                                                 "neither one of",
		good + "subject: x":                                                               "subject",
	} {
		s, err := config.ParseSettings("destinations.yaml", settings)
		if err != nil {
			t.Fatal(err)
		}
		_, ps := smtp.Kind().Decode(s)
		switch {
		case want == "" && ps != nil:
			t.Errorf("%s\nis refused: %v", settings, ps)
		case want != "" && (ps == nil || !strings.Contains(ps.Error(), want)):
			t.Errorf("%s\nsays %v, %q was expected", settings, ps, want)
		}
	}
}
