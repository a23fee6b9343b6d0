package xta

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"weiche/internal/fault"
)

// judgement is what a refusal means: who is at fault, and why.
type judgement struct {
	class  fault.Class
	reason fault.Reason
	detail string
}

// exceptions are the faults of the WSDL, by the element in the SOAP fault's
// detail. The rule is that of http: who would have to change something for the
// next attempt to succeed? A parameter that is not valid counts against the
// message, although a setting may be the cause: one odd message must not stop the
// others, and where all are refused the ratio of dead letters pauses the
// destination.
var exceptions = map[string]judgement{
	"PermissionDeniedException":       {fault.Destination, fault.ReasonUnauthorized, "refuses the router's account, certificate or identifier"},
	"XTAWSTechnicalProblemException":  {fault.Retryable, fault.ReasonUnavailable, "has a technical problem"},
	"ParameterIsNotValidException":    {fault.Permanent, fault.ReasonRefused, "refuses a parameter; look at the settings of the metadata too"},
	"MessageSchemaViolationException": {fault.Permanent, fault.ReasonSchemaInvalid, "says that the message breaks its schema or the service's profile"},
	"MessageVirusDetectionException":  {fault.Permanent, fault.ReasonRefused, "has found malicious code in the message"},
	"SyncAsyncException":              {fault.Destination, fault.ReasonMisconfigured, "says that the service is offered for synchronous messages only"},
	"InvalidMessageIDException":       {fault.Retryable, fault.ReasonUnknown, "does not know the message id"},
	"CancelDeniedException":           {fault.Retryable, fault.ReasonUnknown, "denies to cancel, which it was not asked to"},
}

// codes are the error numbers (code list XTA-WS Fehlernummer 1.0, in
// XTA-Webservice-Datentypen.xsd) that mean something other than their exception.
var codes = map[string]judgement{
	"9023": {fault.Permanent, fault.ReasonTooLarge, "says that the message is too large"},
	// It may have the message from an attempt whose answer was lost. The report,
	// which knew nothing a moment ago, is asked again before anything is sent.
	"9024": {fault.Retryable, fault.ReasonUnknown, "says that the message id is in use"},
}

const unknownID = "InvalidMessageIDException"

// exception is a fault of the WSDL as the peer answered it.
type exception struct{ name, code string }

// Error implements error; it is kept as a cause and shown nowhere.
func (e *exception) Error() string { return e.name }

// judge makes a fault of the exception, which has to be one of exceptions.
func (e *exception) judge() *fault.Error {
	j, ok := codes[e.code]
	if !ok {
		j = exceptions[e.name]
	}
	return fault.Wrap(e, j.class, j.reason, "the XTA server %s", j.detail)
}

// judgeSOAP makes a fault of a SOAP fault without an exception of the WSDL, by the
// local names of its code and subcode (SOAP 1.2 part 1 section 5.4.6,
// WS-Addressing 1.0 SOAP binding section 6.4, WS-Security 1.1 section 12).
func judgeSOAP(code, subcode string, o operation) *fault.Error {
	switch local(subcode) {
	case "FailedAuthentication", "FailedCheck", "InvalidSecurity", "InvalidSecurityToken", "SecurityTokenUnavailable", "UnsupportedSecurityToken":
		return fault.New(fault.Destination, fault.ReasonUnauthorized, "the XTA server refuses the router")
	case "EndpointUnavailable":
		return fault.New(fault.Retryable, fault.ReasonUnavailable, "the XTA server cannot take it now")
	case "ActionMismatch", "ActionNotSupported", "DestinationUnreachable", "InvalidAddressingHeader", "InvalidAddress", "InvalidCardinality", "MessageAddressingHeaderRequired", "OnlyAnonymousAddressSupported", "OnlyNonAnonymousAddressSupported":
		return fault.New(fault.Destination, fault.ReasonMisconfigured, "the XTA server does not take %s at this address", o.name)
	}
	switch local(code) {
	case "VersionMismatch", "MustUnderstand", "DataEncodingUnknown":
		return fault.New(fault.Destination, fault.ReasonMisconfigured, "the server at this address does not speak XTA 2.1.1")
	case "Sender":
		return o.refusal("the XTA server refuses %s", o.name)
	case "Receiver":
		return fault.New(fault.Retryable, fault.ReasonUnavailable, "the XTA server fails within")
	}
	return fault.New(fault.Retryable, fault.ReasonUnknown, "the XTA server answers with a fault of no known kind")
}

// refusal is a refusal of what was sent: the message's fault where it carries the
// message, the destination's where it is the same for every message.
func (o operation) refusal(detail string, args ...any) *fault.Error {
	if o.message {
		return fault.New(fault.Permanent, fault.ReasonRefused, detail, args...)
	}
	return fault.New(fault.Destination, fault.ReasonMisconfigured, detail, args...)
}

func local(qname string) string {
	qname = strings.TrimSpace(qname)
	return qname[strings.LastIndexByte(qname, ':')+1:]
}

// judge makes a fault of a SOAP fault, whatever it holds.
func (f *soapFault) judge(o operation) *fault.Error {
	if e := f.exception(); e != nil {
		return o.blame(e.judge())
	}
	return judgeSOAP(f.Code.Value, f.Code.Subcode.Value, o)
}

// isUnknown says that the peer does not know the message id.
func isUnknown(f *fault.Error) bool {
	e, ok := errors.AsType[*exception](f)
	return ok && e.name == unknownID
}

// exceptionTable is the table of exceptions for the reference page.
func exceptionTable() string {
	var b strings.Builder
	row := func(what string, j judgement) {
		fmt.Fprintf(&b, "| %s | %s (`%s`) |\n", what, map[fault.Class]string{
			fault.Permanent: "refused for good", fault.Retryable: "retry", fault.Destination: "destination at fault"}[j.class], j.reason)
	}
	for _, name := range slices.Sorted(maps.Keys(exceptions)) {
		row("`"+name+"`", exceptions[name])
	}
	for _, code := range slices.Sorted(maps.Keys(codes)) {
		row("error number "+code+", with any of them", codes[code])
	}
	return b.String()
}
