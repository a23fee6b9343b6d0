package sftp

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"net"

	"github.com/pkg/sftp"
	"golang.org/x/crypto/ssh"

	"weiche/internal/adapters/dial"
	"weiche/internal/adapters/wire"
	"weiche/internal/fault"
)

// classify says who is at fault. It repeats neither a path, which ends in a name
// that a portal chose, nor anything the server wrote.
func classify(ctx context.Context, err error) *fault.Error {
	if ctx.Err() != nil {
		return fault.Of(ctx.Err())
	}
	if src, ok := errors.AsType[*wire.SourceError](err); ok {
		return src.Fault()
	}
	if f, ok := errors.AsType[*fault.Error](err); ok {
		return f
	}
	if f := dial.Fault(err); f != nil {
		return f
	}
	if _, ok := errors.AsType[*ssh.AlgorithmNegotiationError](err); ok {
		return misconfigured(err, "the server and the router have no algorithm in common")
	}
	if ne, ok := errors.AsType[net.Error](err); ok && ne.Timeout() {
		return fault.Wrap(err, fault.Retryable, fault.ReasonTimeout, "no answer in time")
	}
	switch status, ok := errors.AsType[*sftp.StatusError](err); {
	case errors.Is(err, fs.ErrNotExist):
		return storage(err, "the directory is missing")
	case errors.Is(err, fs.ErrPermission):
		return storage(err, "the account has no permission")
	case ok && !lost(err):
		return fault.Wrap(err, fault.Destination, fault.ReasonStorage, "the server refuses to work with files: status %d", status.Code)
	}
	return fault.Wrap(err, fault.Retryable, fault.ReasonInterrupted, "the connection broke off")
}

func storage(err error, what string) *fault.Error {
	return fault.Wrap(err, fault.Destination, fault.ReasonStorage, "%s", what)
}

// lost says that the connection ended, rather than that the server answered.
func lost(err error) bool {
	return errors.Is(err, sftp.ErrSSHFxConnectionLost) || errors.Is(err, sftp.ErrSSHFxNoConnection) || broken(err)
}

// broken says that the network or the other side ended a conversation.
func broken(err error) bool {
	if _, ok := errors.AsType[net.Error](err); ok {
		return true
	}
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) || errors.Is(err, errBudget)
}
