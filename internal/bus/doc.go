// Package bus is the router's way to Kafka: appending, subscribing, reading
// back, and looking after topics. It is the only package that imports sarama,
// and it talks to a real cluster and to the embedded broker with the same code.
//
// What it promises: an append is answered only after the broker's answer with
// acks=all; records of one key stay in order, under retry and redelivery too; a
// group's offset never passes a record that was not acknowledged; nothing waits
// for ever on a broker that is gone, and nothing spins.
//
// What it refuses: it opens no payload, writes none into an error or a log
// line, knows no state of a submission, uses no transactions (at least once
// with stable ids is the contract), and creates no topic that was not asked for
// by EnsureTopics.
package bus
