package dial

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
)

// TLSFault says whether an error of a handshake is one of TLS itself: certificate,
// trust, version, or another protocol on the other side.
func TLSFault(err error) bool {
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return true
	}
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		return true
	}
	if _, ok := errors.AsType[tls.AlertError](err); ok {
		return true
	}
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return true
	}
	// What the other side's TLS says to us is an unexported type within OpError.
	op, ok := errors.AsType[*net.OpError](err)
	return ok && (op.Op == "remote error" || op.Op == "local error")
}
