// Command tikv drives a cluster through the public Go client of TiKV, unmodified: raw keys, transactions, scans, region
// splits, garbage collection. Its argument is the address of the placement driver. The first difference ends it with 1.
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"
	tikverr "github.com/tikv/client-go/v2/error"
	"github.com/tikv/client-go/v2/kv"
	"github.com/tikv/client-go/v2/oracle"
	"github.com/tikv/client-go/v2/rawkv"
	"github.com/tikv/client-go/v2/txnkv"
	"github.com/tikv/client-go/v2/txnkv/transaction"
)

func check(err error, what string) {
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", what, err)
		os.Exit(1)
	}
}

func ensure(ok bool, format string, args ...any) {
	if !ok {
		fmt.Fprintf(os.Stderr, format+"\n", args...)
		os.Exit(1)
	}
}

func key(i int) []byte { return fmt.Appendf(nil, "key%05d", i) }

func value(i int) []byte { return fmt.Appendf(nil, "value%d", i) }

func raw(ctx context.Context, pd string) {
	client, err := rawkv.NewClientWithOpts(ctx, []string{pd}, rawkv.WithAPIVersion(kvrpcpb.APIVersion_V1))
	check(err, "raw client")
	defer client.Close()
	check(client.Put(ctx, []byte("k1"), []byte("v1")), "put")
	got, err := client.Get(ctx, []byte("k1"))
	check(err, "get")
	ensure(string(got) == "v1", "get answered %q", got)
	got, err = client.Get(ctx, []byte("none"))
	check(err, "get of nothing")
	ensure(got == nil, "a missing key has %q", got)

	var keys, values [][]byte
	for i := range 1200 {
		keys = append(keys, key(i))
		values = append(values, value(i))
	}
	check(client.BatchPut(ctx, keys, values), "batch put")
	all, err := client.BatchGet(ctx, keys)
	check(err, "batch get")
	for i, got := range all {
		ensure(bytes.Equal(got, value(i)), "batch get of %d: %q", i, got)
	}
	found, _, err := client.Scan(ctx, []byte("key"), []byte("kez"), 2000)
	check(err, "scan")
	ensure(len(found) == 1200 && bytes.Equal(found[7], key(7)), "scan found %d", len(found))
	found, _, err = client.ReverseScan(ctx, []byte("kez"), []byte("key"), 5)
	check(err, "reverse scan")
	ensure(len(found) == 5 && bytes.Equal(found[0], key(1199)), "reverse scan found %q", found)
	check(client.Delete(ctx, key(0)), "delete")
	check(client.BatchDelete(ctx, keys[1:100]), "batch delete")
	check(client.DeleteRange(ctx, key(100), key(200)), "delete range")
	found, _, err = client.Scan(ctx, nil, key(300), 2000, rawkv.ScanKeyOnly())
	check(err, "scan from the beginning")
	ensure(len(found) == 101, "%d keys are left below key00300", len(found))

	client.SetAtomicForCAS(true)
	previous, swapped, err := client.CompareAndSwap(ctx, []byte("cas"), nil, []byte("1"))
	check(err, "CAS")
	ensure(swapped && previous == nil, "CAS of nothing: %v %q", swapped, previous)
	previous, swapped, err = client.CompareAndSwap(ctx, []byte("cas"), []byte("2"), []byte("3"))
	check(err, "CAS")
	ensure(!swapped && string(previous) == "1", "CAS of another value: %v %q", swapped, previous)
	checksum, err := client.Checksum(ctx, key(200), key(1200))
	check(err, "checksum")
	ensure(checksum.TotalKvs == 1000, "checksum of %d keys", checksum.TotalKvs)
	check(client.DeleteRange(ctx, []byte(""), []byte("z")), "delete everything")
}

// Keys that expire need the second version of the API.
func expiry(ctx context.Context, pd string) {
	client, err := rawkv.NewClientWithOpts(ctx, []string{pd}, rawkv.WithAPIVersion(kvrpcpb.APIVersion_V2))
	check(err, "raw client of API V2")
	defer client.Close()
	var got []byte
	check(client.PutWithTTL(ctx, []byte("ttl"), []byte("soon gone"), 100), "put with TTL")
	ttl, err := client.GetKeyTTL(ctx, []byte("ttl"))
	check(err, "TTL")
	ensure(ttl != nil && *ttl > 90 && *ttl <= 100, "TTL is %v", ttl)
	check(client.PutWithTTL(ctx, []byte("ttl"), []byte("soon gone"), 1), "put with a short TTL")
	for got = []byte("x"); got != nil; {
		got, err = client.Get(ctx, []byte("ttl"))
		check(err, "get of an expiring key")
	}

	found, _, err := client.Scan(ctx, nil, nil, 10)
	check(err, "scan of everything in the keyspace")
	ensure(len(found) == 0, "expired and still there: %q", found)
}

func begin(client *txnkv.Client, pessimistic, async, onePC bool) *transaction.KVTxn {
	txn, err := client.Begin()
	check(err, "begin")
	txn.SetPessimistic(pessimistic)
	txn.SetEnableAsyncCommit(async)
	txn.SetEnable1PC(onePC)
	return txn
}

func commit(ctx context.Context, txn *transaction.KVTxn, what string) {
	check(txn.Commit(ctx), what)
}

func lock(ctx context.Context, client *txnkv.Client, txn *transaction.KVTxn, wait int64, keys ...[]byte) error {
	now, err := client.GetTimestamp(ctx)
	check(err, "timestamp")
	return txn.LockKeys(ctx, kv.NewLockCtx(now, wait, time.Now()), keys...)
}

// Every kind of commit: all keys of all regions or none.
func commits(ctx context.Context, client *txnkv.Client) {
	kinds := []struct{ pessimistic, async, onePC bool }{
		{false, false, false}, {false, true, false}, {false, true, true}, {true, false, false}, {true, true, true},
	}
	for n, kind := range kinds {
		txn := begin(client, kind.pessimistic, kind.async, kind.onePC)
		if kind.pessimistic {
			check(lock(ctx, client, txn, kv.LockAlwaysWait, key(n), key(n+500)), "lock")
		}
		check(txn.Set(key(n), value(n)), "set")
		check(txn.Set(key(n+500), value(n)), "set")
		commit(ctx, txn, "commit")
		txn = begin(client, kind.pessimistic, kind.async, kind.onePC)
		check(txn.Set(key(n), []byte("no")), "set")
		check(txn.Rollback(), "rollback")
		txn = begin(client, false, false, false)
		got, err := txn.Get(ctx, key(n))
		check(err, "get")
		ensure(bytes.Equal(got.Value, value(n)), "after commit of kind %d: %q", n, got.Value)
		check(txn.Rollback(), "rollback")
	}
}

func splits(ctx context.Context, client *txnkv.Client) {
	var at [][]byte
	for i := 100; i < 1000; i += 100 {
		at = append(at, key(i))
	}
	regions, err := client.SplitRegions(ctx, at, false, nil)
	check(err, "split")
	ensure(len(regions) >= len(at), "%d regions after %d cuts", len(regions), len(at))
	now, err := client.GetRegionCache().LoadRegionsInKeyRange(kvBackoffer(ctx), key(100), key(1000))
	check(err, "regions of a range")
	ensure(len(now) == len(at), "%d regions in the range", len(now))
	for i, region := range now {
		ensure(bytes.Equal(region.StartKey(), at[i]), "cut %d: region starts at %q", i, region.StartKey())
	}
}

func scans(ctx context.Context, client *txnkv.Client) {
	txn := begin(client, false, true, false)
	for i := range 1000 {
		check(txn.Set(key(i), value(i)), "set")
	}
	commit(ctx, txn, "commit of 1000 keys in 10 regions")
	txn = begin(client, false, true, false)
	check(txn.Delete(key(500)), "delete")
	check(txn.Set(key(1000), value(1000)), "set")
	forward, err := txn.Iter(key(0), []byte("kez"))
	check(err, "iterate")
	count := 0
	for ; forward.Valid(); count++ {
		wanted := count
		if count >= 500 {
			wanted++
		}
		ensure(bytes.Equal(forward.Key(), key(wanted)) && bytes.Equal(forward.Value(), value(wanted)),
			"pair %d is %q", count, forward.Key())
		check(forward.Next(), "next")
	}
	ensure(count == 1000, "%d pairs forward", count)
	backward, err := txn.IterReverse(key(1000), nil)
	check(err, "iterate backwards")
	count = 0
	for ; backward.Valid(); count++ {
		check(backward.Next(), "next")
	}
	ensure(count == 999, "%d pairs backward", count)
	check(txn.Rollback(), "rollback")

	now, err := client.GetTimestamp(ctx)
	check(err, "timestamp")
	var keys [][]byte
	for i := 0; i < 1100; i += 3 {
		keys = append(keys, key(i))
	}
	found, err := client.GetSnapshot(now).BatchGet(ctx, keys)
	check(err, "batch get")
	ensure(len(found) == 334, "batch get found %d", len(found))
	_, err = client.GetSnapshot(now).Get(ctx, []byte("none"))
	ensure(tikverr.IsErrNotFound(err), "a missing key: %v", err)
}

func conflicts(ctx context.Context, client *txnkv.Client) {
	first, second := begin(client, false, false, false), begin(client, false, false, false)
	check(first.Set(key(1), []byte("first")), "set")
	check(second.Set(key(1), []byte("second")), "set")
	commit(ctx, second, "commit")
	err := first.Commit(ctx)
	ensure(tikverr.IsErrWriteConflict(err), "no write conflict but %v", err)

	first, second = begin(client, true, true, false), begin(client, true, true, false)
	check(lock(ctx, client, first, kv.LockAlwaysWait, key(150)), "lock")
	check(lock(ctx, client, second, kv.LockAlwaysWait, key(850)), "lock")
	err = lock(ctx, client, second, kv.LockNoWait, key(150))
	ensure(errors.Is(err, tikverr.ErrLockAcquireFailAndNoWaitSet), "NOWAIT answered %v", err)
	err = lock(ctx, client, second, 100, key(150))
	ensure(errors.Is(err, tikverr.ErrLockWaitTimeout), "a short wait answered %v", err)
	// Each now wants what the other has. Whoever closes the circle is told and gives way; the other gets its lock.
	want := func(txn *transaction.KVTxn, wanted []byte) bool {
		err := lock(ctx, client, txn, kv.LockAlwaysWait, wanted)
		if err != nil {
			var deadlock *tikverr.ErrDeadlock
			ensure(errors.As(err, &deadlock), "no deadlock but %v", err)
			check(txn.Rollback(), "rollback")
			return false
		}
		check(txn.Set(wanted, []byte("mine")), "set")
		commit(ctx, txn, "commit after the deadlock")
		return true
	}
	other := make(chan bool)
	go func() { other <- want(first, key(850)) }()
	got := want(second, key(150))
	ensure(got != <-other, "both or none had to give way")
}

func garbage(ctx context.Context, client *txnkv.Client) {
	before, err := client.GetTimestamp(ctx)
	check(err, "timestamp")
	for _, text := range []string{"one", "two", "three"} {
		txn := begin(client, false, false, true)
		check(txn.Set([]byte("versions"), []byte(text)), "set")
		commit(ctx, txn, "commit")
	}
	safePoint, err := client.GetTimestamp(ctx)
	check(err, "timestamp")
	moved, err := client.GC(ctx, safePoint)
	check(err, "GC")
	ensure(moved == safePoint, "the safe point is %d and not %d", moved, safePoint)
	// Stores look at the safe point now and then; a read below it is refused from then on.
	for {
		_, err = client.GetSnapshot(before).Get(ctx, []byte("versions"))
		if err != nil && !tikverr.IsErrNotFound(err) {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	got, err := client.GetSnapshot(safePoint).Get(ctx, []byte("versions"))
	check(err, "read at the safe point")
	ensure(string(got.Value) == "three", "at the safe point: %q", got.Value)

	check(client.UnsafeDestroyRange(ctx, key(0), key(600)), "unsafe destroy range")
	now, err := client.GetTimestamp(ctx)
	check(err, "timestamp")
	ensure(oracle.ExtractPhysical(now) > 0, "a timestamp without time")
	left, err := client.GetSnapshot(now).Iter(key(0), key(1000))
	check(err, "iterate")
	ensure(left.Valid() && bytes.Equal(left.Key(), key(600)), "left after the range: %q", left.Key())
	regions, err := client.DeleteRange(ctx, key(600), key(1000), 2)
	check(err, "delete range")
	ensure(regions >= 4, "delete range saw %d regions", regions)
	left, err = client.GetSnapshot(now).Iter(key(0), key(1000))
	check(err, "iterate")
	ensure(!left.Valid(), "left after delete range: %v", left.Valid())
}

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	pd := os.Args[1]
	raw(ctx, pd)
	expiry(ctx, pd)
	fmt.Println("raw ok")
	client, err := txnkv.NewClient([]string{pd})
	check(err, "transactional client")
	defer client.Close()
	steps := []struct {
		name string
		run  func(context.Context, *txnkv.Client)
	}{{"commits", commits}, {"splits", splits}, {"scans", scans}, {"conflicts", conflicts}, {"garbage", garbage}}
	for _, step := range steps {
		step.run(ctx, client)
		fmt.Println(step.name, "ok")
	}
}
