"""What every Python MySQL client does here: create, fill, query and change data. Usage: work.py CLIENT PORT"""

import datetime
import decimal
import sys

BLOB = bytes(range(256)) * 40
TEXT = "naïve 漢字 😀 'quoted' \\ back\nline"


def check(got, wanted, what):
    if got != wanted:
        raise SystemExit(f"{what}: got {got!r:.2000}, wanted {wanted!r:.2000}")


def connect_pymysql(port, database=None):
    import pymysql

    return pymysql.connect(host="127.0.0.1", port=port, user="root", database=database, local_infile=True), "%s"


def connect_connector(port, database=None, **kw):
    import mysql.connector

    return mysql.connector.connect(host="127.0.0.1", port=port, user="root", database=database, **kw), "%s"


def work(connect, port, name, cursor_args):
    conn, _ = connect(port)
    cur = conn.cursor()
    cur.execute(f"DROP DATABASE IF EXISTS c_{name}")
    cur.execute(f"CREATE DATABASE c_{name}")
    conn.close()

    conn, _ = connect(port, f"c_{name}")
    cur = conn.cursor(**cursor_args)
    cur.execute(
        "CREATE TABLE t (id INT AUTO_INCREMENT PRIMARY KEY, n BIGINT, d DECIMAL(20,4), f DOUBLE, s VARCHAR(100),"
        " b BLOB, day DATE, at DATETIME(6), span TIME, flag BOOL, e ENUM('x','y'), UNIQUE KEY (s))"
    )
    row = (
        -(2**63),
        decimal.Decimal("1234567890.1234"),
        0.1,
        TEXT,
        BLOB,
        datetime.date(2024, 2, 29),
        datetime.datetime(2024, 2, 29, 12, 34, 56, 789012),
        datetime.timedelta(hours=30, minutes=5),
        True,
        "y",
    )
    insert = (
        "INSERT INTO t (n, d, f, s, b, day, at, span, flag, e) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)"
    )
    cur.execute(insert, row)
    check(cur.lastrowid, 1, "last id")
    cur.execute(insert, (None,) * 10)
    conn.commit()
    cur.execute("SELECT n, d, f, s, b, day, at, span, flag, e FROM t WHERE id = %s", (1,))
    got = cur.fetchone()
    got = tuple(bytes(v) if isinstance(v, bytearray) else v for v in got)
    for column, (value, wanted) in enumerate(zip(got[:8], row[:8])):
        check(value, wanted, f"column {column}")
    check((got[8], got[9]), (1, "y"), "flag and enum")
    cur.execute("SELECT * FROM t WHERE id = %s", (2,))
    check(cur.fetchone()[1:], (None,) * 10, "nulls")

    # Transactions: rolled back work is gone, committed work is seen by another connection.
    cur.execute("UPDATE t SET n = %s WHERE id = %s", (5, 1))
    check(cur.rowcount, 1, "affected rows")
    conn.rollback()
    cur.execute("SELECT n FROM t WHERE id = %s", (1,))
    check(cur.fetchone()[0], -(2**63), "after rollback")
    cur.execute("UPDATE t SET n = n + 1 WHERE id = %s", (1,))
    other, _ = connect(port, f"c_{name}")
    seen = other.cursor()
    seen.execute("SELECT n FROM t WHERE id = 1")
    check(seen.fetchone()[0], -(2**63), "uncommitted change seen elsewhere")
    other.rollback()
    conn.commit()
    seen.execute("SELECT n FROM t WHERE id = 1")
    check(seen.fetchone()[0], -(2**63) + 1, "committed change")
    other.close()

    # Many rows, errors that leave the connection usable.
    cur.executemany("INSERT INTO t (n, s) VALUES (%s, %s)", [(i, f"row {i}") for i in range(1000)])
    conn.commit()
    cur.execute("SELECT COUNT(*), SUM(n) FROM t WHERE s LIKE %s", ("row %",))
    check(cur.fetchone(), (1000, decimal.Decimal(499500)), "aggregate")
    try:
        cur.execute("INSERT INTO t (s) VALUES (%s)", ("ROW 1",))
        raise SystemExit("a duplicate was accepted")
    except Exception as e:  # each client has its own class
        check(e.args[0], 1062, "duplicate key error")
    conn.rollback()
    cur.execute("DELETE FROM t WHERE n >= %s AND n < %s", (500, 1000))
    check(cur.rowcount, 500, "deleted rows")
    conn.commit()
    cur.execute("SELECT id, s FROM t WHERE n BETWEEN %s AND %s ORDER BY n DESC LIMIT 2", (100, 200))
    check([r[1] for r in cur.fetchall()], ["row 200", "row 199"], "ordered range")
    big = "x" * 17_000_000
    cur.execute("SELECT LENGTH(%s)", (big,))
    check(cur.fetchone()[0], len(big), "a packet over 16 MiB")
    conn.close()


def point_reads(connect, port, name):
    """One prepared read by key, executed again and again while what it reads changes."""
    conn, _ = connect(port, f"c_{name}")
    plain, cur = conn.cursor(), conn.cursor(prepared=True)
    plain.execute("CREATE TABLE p (id INT PRIMARY KEY, s VARCHAR(20), n TINYINT, u INT UNSIGNED, b VARBINARY(8))")
    plain.execute("INSERT INTO p VALUES (1, 'one', -1, 4000000000, x'00ff'), (2, NULL, NULL, NULL, NULL), (-3, '漢', 7, 0, '')")
    conn.commit()
    rows = {1: ("one", -1, 4000000000, b"\x00\xff", 1), 2: (None, None, None, None, 2), -3: ("漢", 7, 0, b"", -3), 4: None}

    def see(key):
        cur.execute("SELECT s, n, u, b, id FROM p WHERE id = %s", (key,))
        row = cur.fetchone()
        return row and tuple(bytes(v) if isinstance(v, bytearray) else v for v in row)

    for autocommit in (True, False):
        conn.autocommit = autocommit
        for _ in range(3):
            for key, row in rows.items():
                check(see(key), row, f"row {key}")
    plain.execute("UPDATE p SET s = 'mine' WHERE id = 1")
    plain.execute("DELETE FROM p WHERE id = 2")
    check((see(1)[0], see(2)), ("mine", None), "own writes")
    conn.rollback()
    check((see(1)[0], see(2)), ("one", rows[2]), "after rollback")
    other, _ = connect(port, f"c_{name}")
    writer = other.cursor()
    writer.execute("UPDATE p SET s = 'theirs' WHERE id = 1")
    other.commit()
    check(see(1)[0], "one", "the snapshot of an open transaction")
    conn.commit()
    check(see(1)[0], "theirs", "a new snapshot")
    conn.commit()
    writer.execute("ALTER TABLE p ADD COLUMN later INT NOT NULL DEFAULT 9")
    cur.execute("SELECT * FROM p WHERE id = %s", (2,))
    check(cur.fetchone()[-1], 9, "a column added later")
    cur.execute("SELECT * FROM p WHERE id = %s", (2,))
    check(cur.fetchone()[-1], 9, "a column added later, again")
    conn.commit()
    writer.execute("DROP TABLE p")
    other.close()
    try:
        see(1)
        raise SystemExit("a dropped table was read")
    except Exception as e:
        check(e.args[0], 1146, "dropped table")
    conn.close()


def sqlalchemy_work(port):
    import sqlalchemy as sa
    from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship

    admin = sa.create_engine(f"mysql+pymysql://root@127.0.0.1:{port}/")
    with admin.connect() as conn:
        conn.execute(sa.text("DROP DATABASE IF EXISTS c_alchemy"))
        conn.execute(sa.text("CREATE DATABASE c_alchemy"))
    engine = sa.create_engine(f"mysql+pymysql://root@127.0.0.1:{port}/c_alchemy")

    join = "foreign(Book.author_id) == Author.id"

    class Base(DeclarativeBase):
        pass

    class Author(Base):
        __tablename__ = "author"
        id: Mapped[int] = mapped_column(primary_key=True)
        name: Mapped[str] = mapped_column(sa.String(50), unique=True)
        books: Mapped[list["Book"]] = relationship(back_populates="author", primaryjoin=join)

    class Book(Base):
        __tablename__ = "book"
        id: Mapped[int] = mapped_column(primary_key=True)
        title: Mapped[str] = mapped_column(sa.String(100), index=True)
        price: Mapped[decimal.Decimal] = mapped_column(sa.Numeric(10, 2))
        author_id: Mapped[int] = mapped_column(sa.Integer, index=True)
        author: Mapped[Author] = relationship(back_populates="books", primaryjoin=join)

    Base.metadata.create_all(engine)
    with Session(engine) as session:
        a, b = Author(name="Ursula"), Author(name="Stanisław")
        session.add_all([a, b])
        session.flush()
        session.add_all([Book(title=f"Book {i}", price=i, author=a if i % 2 else b) for i in range(10)])
        session.commit()
    with Session(engine) as session:
        query = (
            sa.select(Author.name, sa.func.count(Book.id), sa.func.sum(Book.price))
            .join(Book, Book.author_id == Author.id)
            .group_by(Author.name)
            .order_by(Author.name)
        )
        got = [tuple(r) for r in session.execute(query)]
        check(got, [("Stanisław", 5, decimal.Decimal("20.00")), ("Ursula", 5, decimal.Decimal("25.00"))], "ORM")
        author = session.scalars(sa.select(Author).where(Author.name == "Ursula")).one()
        check(len(author.books), 5, "relationship")
        author.books[0].title = "Changed"
        session.commit()
        check(session.scalars(sa.select(sa.func.count()).where(Book.title == "Changed")).one(), 1, "update")
    columns = {c["name"]: c for c in sa.inspect(engine).get_columns("book")}
    check(sorted(columns), ["author_id", "id", "price", "title"], "reflection")
    check(sa.inspect(engine).get_pk_constraint("book")["constrained_columns"], ["id"], "reflected key")
    names = sorted(i["name"] for i in sa.inspect(engine).get_indexes("book"))
    check(names, ["ix_book_author_id", "ix_book_title"], "reflected indexes")
    Base.metadata.drop_all(engine)
    check(sa.inspect(engine).get_table_names(), [], "dropped tables")


def main():
    client, port = sys.argv[1], int(sys.argv[2])
    if client == "pymysql":
        work(connect_pymysql, port, client, {})
    elif client == "connector":
        work(lambda p, d=None: connect_connector(p, d, use_pure=True), port, client, {})
    elif client == "connector_prepared":
        work(lambda p, d=None: connect_connector(p, d, use_pure=True), port, client, {"prepared": True})
        point_reads(lambda p, d=None: connect_connector(p, d, use_pure=True), port, client)
    elif client == "sqlalchemy":
        sqlalchemy_work(port)
    else:
        raise SystemExit(f"unknown client {client}")
    print("ok", client)


main()
