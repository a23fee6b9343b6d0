package status

import (
	"context"
	"database/sql"
	"strconv"
	"time"

	"weiche/internal/submission"
)

// By is what dead letters are counted by.
type By string

// What dead letters can be counted by.
const (
	ByCause       By = "cause"
	ByDestination By = "destination" // "" where dispatch gave up
	ByService     By = "service"
	ByLand        By = "land"
	ByAge         By = "age" // see Ages
)

// columns are what a count is made by, in submissions and in deliveries.
var columns = map[By][2]string{
	ByCause: {"s.reason", "d.reason"}, ByDestination: {"''", "d.destination"}, ByService: {"s.service", "s.service"}, ByLand: {"s.land", "s.land"},
	ByAge: {"s.updated_at", "d.updated_at"},
}

// Known says whether letters can be counted by it.
func (b By) Known() bool { _, ok := columns[b]; return ok }

// Ages returns the groups of ByAge, the youngest first.
func Ages() []string { return []string{ageHour, ageDay, ageWeek, ageOlder} }

const (
	ageHour  = "under 1h"
	ageDay   = "under 24h"
	ageWeek  = "under 7d"
	ageOlder = "7d and older"
)

// Group is how many letters have something in common, and since when the oldest
// and the newest of them are what they are.
type Group struct {
	Key    string    `json:"key"`
	Count  int       `json:"count"`
	Oldest time.Time `json:"oldest"`
	Newest time.Time `json:"newest"`
}

// Groups counts what is dead or unassigned, in the order of the keys, at most
// f.Limit groups (see Filter). next is the cursor of the following page, "" at
// the end: the last key. Ages are counted from now.
func (s *Store) Groups(ctx context.Context, state submission.State, by By, f Filter, now time.Time) (list []Group, next string, err error) {
	c := columns[by]
	q, args := f.union(state, c[0]+" AS k, s.updated_at AS at", c[1]+" AS k, d.updated_at AS at")
	if q == "" {
		return nil, "", nil
	}
	key := "k"
	if by == ByAge {
		key = "CASE WHEN k > ? THEN '" + ageHour + "' WHEN k > ? THEN '" + ageDay + "' WHEN k > ? THEN '" + ageWeek + "' ELSE '" + ageOlder + "' END"
		ages := []any{millis(now.Add(-time.Hour)), millis(now.AddDate(0, 0, -1)), millis(now.AddDate(0, 0, -7))}
		args = append(ages, args...)
	}
	q = "SELECT key, COUNT(*), MIN(at), MAX(at) FROM (SELECT " + key + " AS key, at FROM (" + q + "))"
	if f.After != "" {
		q, args = q+" WHERE key > ?", append(args, f.After)
	}
	limit := f.limit()
	err = s.query(ctx, q+" GROUP BY key ORDER BY key LIMIT "+strconv.Itoa(limit+1), args, func(rows *sql.Rows) error {
		var g Group
		var oldest, newest int64
		err := rows.Scan(&g.Key, &g.Count, &oldest, &newest)
		g.Oldest, g.Newest = fromMillis(oldest), fromMillis(newest)
		list = append(list, g)
		return err
	})
	if len(list) > limit {
		list = list[:limit]
		next = list[limit-1].Key
	}
	return list, next, wrap(err)
}
