"""Raw and transactional work with the public tikv-client package. Usage: tikv_work.py PD_ADDRESS"""

import asyncio
import os
import sys


def check(got, wanted, what):
    if got != wanted:
        raise SystemExit(f"{what}: got {got!r:.2000}, wanted {wanted!r:.2000}")


async def raw(pd):
    from tikv_client.asynchronous import RawClient

    client = await RawClient.connect([pd])
    await client.put(b"py-raw-1", b"one")
    await client.batch_put({b"py-raw-2": b"two", b"py-raw-3": b"three"})
    check(await client.get(b"py-raw-1"), b"one", "raw get")
    check(await client.get(b"py-raw-none"), None, "raw get of nothing")
    pairs = await client.scan(b"py-raw-", end=b"py-raw-9", limit=10)
    check(list(pairs), [(b"py-raw-1", b"one"), (b"py-raw-2", b"two"), (b"py-raw-3", b"three")], "raw scan")
    await client.delete(b"py-raw-1")
    check(await client.get(b"py-raw-1"), None, "raw delete")
    await client.delete_range(b"py-raw-", end=b"py-raw-9")
    check(await client.batch_get([b"py-raw-2", b"py-raw-3"]), [], "raw delete range")


async def transactions(pd):
    from tikv_client.asynchronous import TransactionClient

    client = await TransactionClient.connect([pd])
    for pessimistic in (False, True):
        txn = await client.begin(pessimistic=pessimistic)
        for i in range(10):
            await txn.put(b"py-txn-%d" % i, b"v%d" % i)
        check(await txn.get(b"py-txn-3"), b"v3", "own write")
        await txn.commit()
        snapshot = client.snapshot(await client.current_timestamp(), pessimistic=False)
        check(await snapshot.get(b"py-txn-3"), b"v3", "committed value")
        pairs = list(await snapshot.scan(b"py-txn-", end=b"py-txn-:", limit=20))
        check(len(pairs), 10, "snapshot scan")
        txn = await client.begin(pessimistic=pessimistic)
        await txn.put(b"py-txn-3", b"rolled back")
        await txn.rollback()
        txn = await client.begin(pessimistic=pessimistic)
        check(await txn.get(b"py-txn-3"), b"v3", "after rollback")
        await txn.delete(b"py-txn-3")
        await txn.commit()
        txn = await client.begin(pessimistic=pessimistic)
        check(await txn.get(b"py-txn-3"), None, "after delete")
        await txn.rollback()


asyncio.run(raw(sys.argv[1]))
asyncio.run(transactions(sys.argv[1]))
print("ok tikv-client", flush=True)
# The package's runtime threads may outlive the interpreter and crash it on the way out.
os._exit(0)
