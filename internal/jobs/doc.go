// Package jobs carries out operators' orders about many dead letters: redrive
// or close everything that a filter names, as one job that can be looked at
// before it runs, stopped, resumed, and that outlives the process.
//
// A preview fixes the job's items once and for all: what dies later is none of
// them. Everything about a job stands in one small compacted topic that every
// replica follows; the owner of partition 0 of dispatch runs it. Who runs it is
// no matter of correctness: an item says which redrive it is, the stages drop
// the same order when it comes twice, so two runners, or one that crashed,
// repeat and never redrive twice. The package writes no state of a submission.
// Like every operator's order its orders go to the owners' own topics. See ADR
// 15.
package jobs
