package bus

import "time"

// AnyPartition asks Append to choose the partition by the record's key.
const AnyPartition int32 = -1

// Record is one Kafka record. Append fills Partition and Offset. A nil Value is
// a tombstone in a compacted topic and "no value" elsewhere. Header names are
// unique here: of a name that occurs twice in Kafka the last one is kept.
type Record struct {
	Topic     string
	Partition int32 // AnyPartition: by key
	Offset    int64
	Key       []byte
	Value     []byte
	Headers   map[string]string
	Time      time.Time // create time; zero means now
}
