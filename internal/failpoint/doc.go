// Package failpoint ends the router where a test wants it to, between two steps
// that a crash must not tear apart.
//
// A call of Hit stands at every such boundary and nowhere else. Without the
// build tag `failpoints` it is an empty function that the compiler removes;
// nothing of it is in a router that is shipped. With the tag it obeys two
// variables of the environment:
//
//	WEICHE_FAILPOINT=name:n       at the n-th hit (1 where it is left out) of this
//	                              point the process kills itself with SIGKILL
//	WEICHE_FAILPOINT=name:n:5s    instead the caller sleeps that long
//	WEICHE_FAILPOINT_TRACE=file   every hit appends its point's name, a line each
//
// Names are literals, `room.what`, so that a test finds all of them in the
// source.
package failpoint
