#!/bin/sh
# What the tests need beyond Go. On Debian as root it is installed; elsewhere the
# line says what to install. Without it those tests are skipped by name, and fail
# under CI=true; so this ends well either way.
#
# Nothing is removed: where another mail server is installed, Exim is not. Nothing
# is started either, now or at the next boot: OpenSSH's, Exim's and Prometheus'
# packages would start their servers, and the tests start their own.

# command:package, several packages joined by +
needed="xmllint:libxml2-utils pdftotext:poppler-utils promtool:prometheus java:openjdk-17-jre-headless javac:openjdk-17-jdk-headless mvn:maven
gcc:gcc python3:python3 openssl:openssl sshd:openssh-server exim4:exim4-daemon-heavy saslpasswd2:sasl2-bin+libsasl2-modules"
services="ssh.service ssh.socket exim4.service prometheus.service saslauthd.service"
policy=${WEICHE_POLICY:-/usr/sbin/policy-rc.d}

PATH="$PATH:/usr/sbin"
missing=""
for n in $needed; do
	command -v "${n%%:*}" >/dev/null 2>&1 || missing="$missing $(echo "${n##*:}" | tr + ' ')"
done
[ -n "$missing" ] || exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null 2>&1; then
	echo "deps: the tests want these packages:$missing"
	exit 0
fi

# Whoever has a policy of their own (invoke-rc.d(8)) has decided what starts.
if [ ! -e "$policy" ]; then
	trap 'rm -f "$policy"' EXIT
	trap 'exit 1' HUP INT TERM
	printf '#!/bin/sh\n# of "make deps", for as long as it runs\nexit 101\n' >"$policy"
	chmod 755 "$policy"
fi
# What is there already is not ours to switch off.
known=""
systemd=""
if [ -d /run/systemd/system ]; then
	systemd=yes
	for s in $services; do
		systemctl cat "$s" >/dev/null 2>&1 && known="$known $s"
	done
fi

install() { DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-remove --no-install-recommends "$@" >/dev/null; }

echo "deps: installing$missing"
if ! apt-get update -qq >/dev/null; then
	echo "deps: the package lists cannot be fetched; going on with those at hand" >&2
fi
# shellcheck disable=SC2086 # a list of words
if ! install $missing; then
	echo "deps: not all at once; one after the other" >&2
	for p in $missing; do
		install "$p" || echo "deps: $p is not installed: apt-get's reason stands above. \"Remove is disabled\" means that it would take another package away (as one mail server takes another); install it by hand where that is right. Its tests are skipped, and fail under CI=true" >&2
	done
fi

if [ -n "$systemd" ]; then
	for s in $services; do
		case " $known " in
		*" $s "*) ;;
		*) systemctl cat "$s" >/dev/null 2>&1 && systemctl disable --quiet "$s" ;;
		esac
	done
fi
exit 0
