#!/usr/bin/env python3
"""TPC-H on MySQL servers: loads what is missing, runs the queries, compares the rows with DuckDB's, prints a Markdown table.

The first server is ours, the others stand beside it. Times are seconds of the fastest of --runs runs, rows fetched.
"""

import argparse
import datetime
import decimal
import json
import pathlib
import re
import subprocess
import sys
import threading
import time

import duckdb
import pymysql

HERE = pathlib.Path(__file__).parent
TABLES = ["region", "nation", "supplier", "part", "partsupp", "customer", "orders", "lineitem"]
# Lines per LOAD DATA: each is one transaction.
CHUNK_LINES = 50_000
# (column, descending) of the ORDER BY keys, by which an answer must be sorted; rows equal in them may come in any order.
ORDERS = {
    1: [(0, 0), (1, 0)], 2: [(0, 1), (2, 0), (1, 0), (3, 0)], 3: [(1, 1), (2, 0)], 4: [(0, 0)], 5: [(1, 1)],
    7: [(0, 0), (1, 0), (2, 0)], 8: [(0, 0)], 9: [(0, 0), (1, 1)], 10: [(2, 1)], 11: [(1, 1)], 12: [(0, 0)],
    13: [(1, 1), (0, 1)], 15: [(0, 0)], 16: [(3, 1), (0, 0), (1, 0), (2, 0)], 18: [(4, 1), (3, 0)], 20: [(0, 0)],
    21: [(1, 1), (0, 0)], 22: [(0, 0)],
}


def query(number, scale):
    text = (HERE / "queries" / f"{number:02}.sql").read_text()
    # Query 11's fraction depends on the scale.
    return text.replace("* 0.0001", f"* {0.0001 / scale:.10f}") if number == 11 else text


def connect(address, database=None):
    host, port = address.rsplit(":", 1)
    return pymysql.connect(host=host, port=int(port), user="root", database=database, local_infile=True, autocommit=True)


def generate(folder, scale):
    """The tables as files of '|'-separated lines, made once."""
    if not (folder / "done").exists():
        folder.mkdir(parents=True, exist_ok=True)
        tool = pathlib.Path(sys.executable).parent / "tpchgen-cli"
        subprocess.run([tool, "-s", str(scale), "--output-dir", str(folder)], check=True)
        (folder / "done").touch()


def plain(value):
    if isinstance(value, (decimal.Decimal, float)):
        return float(value)
    if isinstance(value, (datetime.date, datetime.datetime)):
        return str(value)[:10]
    return value


def answers(folder, scale):
    """What DuckDB answers, kept beside the data."""
    path = folder / "answers.json"
    if path.exists():
        return {int(number): rows for number, rows in json.loads(path.read_text()).items()}
    db = duckdb.connect()
    # Keys do not matter here.
    schema = re.sub(r",\s*(PRIMARY )?KEY \([^)]*\)", "", (HERE / "schema.sql").read_text())
    db.execute(schema)
    for table in TABLES:
        width = len(db.execute(f"DESCRIBE {table}").fetchall())
        columns = ", ".join(f"'c{n}': 'VARCHAR'" for n in range(width + 1))
        # Each line ends with a separator: one more, empty column.
        db.execute(f"INSERT INTO {table} SELECT * EXCLUDE (c{width}) FROM read_csv('{folder / table}.tbl', delim='|', "
                   f"header=false, quote='', columns={{{columns}}})")
    found = {n: [[plain(v) for v in row] for row in db.execute(query(n, scale)).fetchall()] for n in range(1, 23)}
    path.write_text(json.dumps(found))
    return found


def chunks(path):
    lines = []
    with open(path, "rb") as file:
        for line in file:
            lines.append(line)
            if len(lines) == CHUNK_LINES:
                yield b"".join(lines)
                lines = []
    if lines:
        yield b"".join(lines)


def load(address, database, folder):
    """Loads the tables unless they are there already. Two connections at a time."""
    with connect(address) as connection, connection.cursor() as cursor:
        cursor.execute(f"CREATE DATABASE IF NOT EXISTS {database}")
        cursor.execute(f"USE {database}")
        cursor.execute("SHOW TABLES LIKE 'loaded'")
        if cursor.fetchall():
            return
        for table in reversed(TABLES):
            cursor.execute(f"DROP TABLE IF EXISTS {table}")
        for statement in (HERE / "schema.sql").read_text().split(";"):
            if statement.strip():
                cursor.execute(statement)
    start = time.monotonic()
    for table in TABLES:
        work, lock, failed = chunks(folder / f"{table}.tbl"), threading.Lock(), []

        def feed(number, table=table, work=work, lock=lock, failed=failed):
            part = folder / f".part-{address.replace(':', '-')}-{number}"
            try:
                with connect(address, database) as connection, connection.cursor() as cursor:
                    while True:
                        with lock:
                            piece = next(work, None)
                        if piece is None or failed:
                            break
                        part.write_bytes(piece)
                        cursor.execute(f"LOAD DATA LOCAL INFILE '{part}' INTO TABLE {table} "
                                       "FIELDS TERMINATED BY '|' LINES TERMINATED BY '|\\n'")
            except Exception as error:  # handed to the thread that waits
                failed.append(error)
            part.unlink(missing_ok=True)

        threads = [threading.Thread(target=feed, args=(number,)) for number in range(2)]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
        if failed:
            raise failed[0]
    with connect(address, database) as connection, connection.cursor() as cursor:
        try:
            cursor.execute("ANALYZE TABLE " + ", ".join(TABLES))
            cursor.fetchall()
        except pymysql.Error as error:
            print(f"ANALYZE TABLE on {address}: {error}", file=sys.stderr)
        cursor.execute("CREATE TABLE loaded (id INT PRIMARY KEY)")
    print(f"loaded {address} in {time.monotonic() - start:.1f} s", file=sys.stderr)


def close(a, b):
    if isinstance(a, float) or isinstance(b, float):
        return a is not None and b is not None and abs(float(a) - float(b)) <= 0.0051 + 1e-6 * abs(float(b))
    return a == b


def same_rows(a, b):
    return len(a) == len(b) and all(len(x) == len(y) and all(map(close, x, y)) for x, y in zip(a, b))


def is_right(number, got, expected):
    if not same_rows(got, expected):
        # Rows equal in the order's keys may have changed places.
        def key(row):
            return [f"{v:.0f}" if isinstance(v, float) else str(v) for v in row]
        if not same_rows(sorted(got, key=key), sorted(expected, key=key)):
            return False
    for place, descending in reversed(ORDERS.get(number, [])):
        values = [row[place] for row in expected], [row[place] for row in got]
        if place == ORDERS[number][0][0] and not all(map(close, *values)):
            return False
    return True


def run(address, database, number, scale, expected, runs, timeout):
    """The fastest time in seconds (None: failed) and a word about the answer."""
    best = None
    for _ in range(runs):
        connection = connect(address, database)
        timer = threading.Timer(timeout, kill, (address, connection.thread_id()))
        timer.start()
        start = time.monotonic()
        try:
            with connection.cursor() as cursor:
                cursor.execute(query(number, scale))
                got = [[plain(v) for v in row] for row in cursor.fetchall()]
        except pymysql.Error as error:
            late = time.monotonic() - start >= timeout
            return None, f"over {timeout} s" if late else f"ERROR {error.args[-1]}"
        finally:
            timer.cancel()
            connection.close()
        took = time.monotonic() - start
        best = took if best is None else min(best, took)
        if not is_right(number, got, expected):
            return best, f"WRONG ({len(got)} rows for {len(expected)})"
    return best, "right"


def kill(address, thread):
    with connect(address) as connection, connection.cursor() as cursor:
        cursor.execute(f"KILL {thread}")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("servers", nargs="+", metavar="NAME=HOST:PORT")
    parser.add_argument("--scale", type=float, default=0.1)
    parser.add_argument("--folder", type=pathlib.Path, required=True, help="where the generated data is kept")
    parser.add_argument("--queries", type=lambda text: [int(n) for n in text.split(",")], default=list(range(1, 23)))
    parser.add_argument("--runs", type=int, default=2)
    parser.add_argument("--timeout", type=float, default=300, help="seconds per query")
    options = parser.parse_args()
    servers = [server.split("=", 1) for server in options.servers]
    scale, folder = options.scale, options.folder / f"sf{options.scale:g}"
    database = f"tpch{options.scale:g}".replace(".", "_")
    generate(folder, scale)
    expected = answers(folder, scale)
    for _, address in servers:
        load(address, database, folder)
    names = [name for name, _ in servers]
    print("| query | " + " | ".join(f"{name}, s" for name in names) + " | " + " | ".join(names) + " |")
    print("|" + "---|" * (1 + 2 * len(names)))
    totals, wrong = [0.0] * len(names), 0
    for number in options.queries:
        results = [run(address, database, number, scale, expected[number], options.runs, options.timeout)
                   for _, address in servers]
        times = [f"{took:.3f}" if took is not None else "-" for took, _ in results]
        print(f"| {number} | " + " | ".join(times) + " | " + " | ".join(word for _, word in results) + " |", flush=True)
        totals = [total + (took if took is not None else options.timeout) for total, (took, _) in zip(totals, results)]
        wrong += results[0][1] != "right"
    print("| all | " + " | ".join(f"{total:.3f}" for total in totals) + " |" + " |" * len(names))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
