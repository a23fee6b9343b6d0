package console

import (
	"net/http"

	"weiche/internal/fault"
)

// What an operator can do where trying again does not help. A record that nobody
// can open is a conflict with what is stored, and so is a setting that is at fault.
var remedies = map[fault.Reason]string{
	fault.ReasonUndecodable: "Nobody can read it any more: close it, with a reason.",
	fault.ReasonUndecryptable: "What was destroyed with its day's key stays unreadable: close it, with a reason. " +
		"Where a key or a record is lost or damaged, bring it back from a backup, then ask again.",
	fault.ReasonBlobMissing:   "Bring the blob back from a backup of the blob store, then ask again; otherwise close it, with a reason.",
	fault.ReasonMisconfigured: "Mend that setting or file, then ask again; nothing has to be restarted for a file.",
	fault.ReasonNotAuthorised: "Give the router's Kafka user the right that it lacks, then ask again.",
	fault.ReasonUnknownTopic:  "Bring the topic back, then ask again.",
}

// lasts says whether only a person can mend a fault. Some of those are retryable
// for a stage, which has all the time there is; who asks has not.
func lasts(f *fault.Error) bool {
	switch f.Reason {
	case fault.ReasonUnknown:
		return false
	case fault.ReasonMisconfigured, fault.ReasonNotAuthorised, fault.ReasonUnknownTopic:
		return true
	}
	return f.Class == fault.Permanent
}

// lasting tells of a fault that trying again does not mend, and what does.
func (a *API) lasting(f *fault.Error, to route) *Problem {
	a.Logger.Warn("an operator's request cannot be carried out", "method", to.method, "path", to.path, "reason", string(f.Reason), "detail", f.Detail)
	detail := "Trying again changes nothing"
	if f.Detail != "" {
		detail += ": " + f.Detail
	}
	p := &Problem{Status: http.StatusUnprocessableEntity, Type: string(f.Reason), Title: "That cannot be done", Detail: detail + "."}
	remedy, conflicts := remedies[f.Reason]
	if !conflicts {
		return p
	}
	p.Status, p.Detail = http.StatusConflict, p.Detail+" "+remedy
	switch f.Reason {
	case fault.ReasonUndecodable, fault.ReasonUndecryptable, fault.ReasonBlobMissing:
		p.Title = "The submission's bytes cannot be read"
	}
	return p
}
