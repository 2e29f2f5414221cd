package rutile;

import java.math.BigDecimal;
import java.sql.Connection;
import java.sql.DatabaseMetaData;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.sql.Types;
import java.time.LocalDate;
import java.time.LocalDateTime;
import java.util.Arrays;
import java.util.Objects;

/** What a Java program does with MySQL Connector/J: create, fill, query and change data. Usage: Work PORT. */
public final class Work {
  private static final String TEXT = "naïve 漢字 😀 'quoted' \\ back\nline";

  private static void check(Object got, Object wanted, String what) {
    if (!Objects.equals(got, wanted)) {
      throw new AssertionError(what + ": got " + got + ", wanted " + wanted);
    }
  }

  public static void main(String[] args) throws Exception {
    for (boolean prepared : new boolean[] {false, true}) {
      String url = "jdbc:mysql://127.0.0.1:" + args[0] + "/?useServerPrepStmts=" + prepared
          + "&cachePrepStmts=" + prepared + "&connectionTimeZone=UTC&allowPublicKeyRetrieval=true";
      try (Connection conn = DriverManager.getConnection(url, "root", "")) {
        create(conn);
        rows(conn);
        transactions(conn);
        batches(conn);
        metadata(conn);
      }
    }
    cursors(args[0]);
    largeValues(args[0]);
    System.out.println("ok jdbc");
  }

  /** Server-side cursors: rows come in portions, and another statement may run in between. */
  private static void cursors(String port) throws SQLException {
    String url = "jdbc:mysql://127.0.0.1:" + port
        + "/c_jdbc?useCursorFetch=true&defaultFetchSize=70&connectionTimeZone=UTC&allowPublicKeyRetrieval=true";
    try (Connection conn = DriverManager.getConnection(url, "root", ""); Statement s = conn.createStatement()) {
      s.execute("CREATE TABLE cur (id INT PRIMARY KEY, s VARCHAR(20), x DOUBLE, at DATETIME(6))");
      try (PreparedStatement p = conn.prepareStatement("INSERT INTO cur VALUES (?, ?, NULL, '2024-02-03 04:05:06.7')")) {
        for (int i = 0; i < 1000; i++) {
          p.setInt(1, i);
          p.setString(2, "row " + i);
          p.addBatch();
        }
        p.executeBatch();
      }
      for (int fetch : new int[] {1, 7, 1000, 5000}) {
        try (PreparedStatement p = conn.prepareStatement("SELECT id, s, x, at FROM cur WHERE id >= ? ORDER BY id")) {
          p.setFetchSize(fetch);
          p.setInt(1, 10);
          int wanted = 10;
          try (ResultSet r = p.executeQuery()) {
            while (r.next()) {
              check(r.getInt(1), wanted, "id by cursor");
              check(r.getString(2), "row " + wanted, "text by cursor");
              check(r.getObject(3), null, "NULL by cursor");
              check(r.getTimestamp(4).toString(), "2024-02-03 04:05:06.7", "datetime by cursor");
              if (wanted == 500) {
                try (ResultSet other = s.executeQuery("SELECT COUNT(*) FROM cur")) {
                  other.next();
                  check(other.getInt(1), 1000, "a statement beside a cursor");
                }
              }
              wanted++;
            }
          }
          check(wanted, 1000, "rows by cursor");
          // The same statement again, left in the middle.
          try (ResultSet r = p.executeQuery()) {
            r.next();
            check(r.getInt(1), 10, "a cursor opened again");
          }
        }
      }
      try (PreparedStatement p = conn.prepareStatement("SELECT id FROM cur WHERE id < 0");
          ResultSet r = p.executeQuery()) {
        check(r.next(), false, "an empty cursor");
      }
    }
  }

  /** A value of 60 MB on its way there and back. */
  private static void largeValues(String port) throws SQLException {
    String url = "jdbc:mysql://127.0.0.1:" + port + "/c_jdbc?useServerPrepStmts=true&allowPublicKeyRetrieval=true"
        + "&maxAllowedPacket=67108864";
    byte[] blob = new byte[60 << 20];
    for (int i = 0; i < blob.length; i++) {
      blob[i] = (byte) (i * 31 + i / 977);
    }
    try (Connection conn = DriverManager.getConnection(url, "root", ""); Statement s = conn.createStatement()) {
      s.execute("CREATE TABLE large (id INT PRIMARY KEY, b LONGBLOB)");
      try (PreparedStatement p = conn.prepareStatement("INSERT INTO large VALUES (1, ?)")) {
        p.setBytes(1, blob);
        check(p.executeUpdate(), 1, "large insert");
      }
      try (ResultSet r = s.executeQuery("SELECT b FROM large")) {
        r.next();
        check(Arrays.equals(r.getBytes(1), blob), true, "large value");
      }
      s.execute("DROP TABLE large");
    }
  }

  private static void create(Connection conn) throws SQLException {
    try (Statement s = conn.createStatement()) {
      s.execute("DROP DATABASE IF EXISTS c_jdbc");
      s.execute("CREATE DATABASE c_jdbc");
    }
    conn.setCatalog("c_jdbc");
    try (Statement s = conn.createStatement()) {
      s.execute("CREATE TABLE t (id BIGINT AUTO_INCREMENT PRIMARY KEY, n INT, u BIGINT UNSIGNED, d DECIMAL(30,10),"
          + " f DOUBLE, s VARCHAR(100), b LONGBLOB, day DATE, at DATETIME(6), flag TINYINT(1), KEY (n))");
    }
  }

  private static void rows(Connection conn) throws SQLException {
    byte[] blob = new byte[100_000];
    for (int i = 0; i < blob.length; i++) {
      blob[i] = (byte) i;
    }
    String insert = "INSERT INTO t (n, u, d, f, s, b, day, at, flag) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)";
    try (PreparedStatement p = conn.prepareStatement(insert, Statement.RETURN_GENERATED_KEYS)) {
      p.setInt(1, -7);
      p.setBigDecimal(2, new BigDecimal("18446744073709551615"));
      p.setBigDecimal(3, new BigDecimal("-12345678901234567890.0123456789"));
      p.setDouble(4, 0.1);
      p.setString(5, TEXT);
      p.setBytes(6, blob);
      p.setObject(7, LocalDate.of(2024, 2, 29));
      p.setObject(8, LocalDateTime.of(2024, 2, 29, 12, 34, 56, 789012000));
      p.setBoolean(9, true);
      check(p.executeUpdate(), 1, "inserted rows");
      try (ResultSet keys = p.getGeneratedKeys()) {
        check(keys.next(), true, "generated key");
        check(keys.getLong(1), 1L, "generated key");
      }
      for (int i = 1; i <= 9; i++) {
        p.setNull(i, Types.NULL);
      }
      p.executeUpdate();
    }
    try (PreparedStatement p = conn.prepareStatement("SELECT * FROM t WHERE id = ?")) {
      for (int round = 0; round < 3; round++) {
        p.setLong(1, 1);
        try (ResultSet r = p.executeQuery()) {
          check(r.next(), true, "a row");
          check(r.getInt("n"), -7, "int");
          check(r.getBigDecimal("u"), new BigDecimal("18446744073709551615"), "unsigned");
          check(r.getBigDecimal("d"), new BigDecimal("-12345678901234567890.0123456789"), "decimal");
          check(r.getDouble("f"), 0.1, "double");
          check(r.getString("s"), TEXT, "text");
          check(Arrays.equals(r.getBytes("b"), blob), true, "blob");
          check(r.getObject("day", LocalDate.class), LocalDate.of(2024, 2, 29), "date");
          check(r.getObject("at", LocalDateTime.class), LocalDateTime.of(2024, 2, 29, 12, 34, 56, 789012000), "datetime");
          check(r.getObject("flag"), Boolean.TRUE, "TINYINT(1) is a boolean");
          check(r.next(), false, "one row");
        }
        p.setLong(1, 2);
        try (ResultSet r = p.executeQuery()) {
          r.next();
          for (int i = 2; i <= 10; i++) {
            check(r.getObject(i), null, "null in column " + i);
          }
        }
      }
    }
  }

  private static void transactions(Connection conn) throws SQLException {
    conn.setAutoCommit(false);
    try (Statement s = conn.createStatement()) {
      s.executeUpdate("UPDATE t SET n = 1 WHERE id = 1");
      conn.rollback();
      try (ResultSet r = s.executeQuery("SELECT n FROM t WHERE id = 1")) {
        r.next();
        check(r.getInt(1), -7, "rolled back");
      }
      s.executeUpdate("UPDATE t SET n = 2 WHERE id = 1");
      conn.commit();
      try (ResultSet r = s.executeQuery("SELECT n FROM t WHERE id = 1 FOR UPDATE")) {
        r.next();
        check(r.getInt(1), 2, "committed");
      }
      conn.commit();
      try {
        s.executeUpdate("INSERT INTO t (id) VALUES (1)");
        throw new AssertionError("a duplicate was accepted");
      } catch (SQLException e) {
        check(e.getErrorCode(), 1062, "duplicate key");
        check(e.getSQLState(), "23000", "SQLSTATE");
      }
      conn.rollback();
    }
    conn.setAutoCommit(true);
  }

  private static void batches(Connection conn) throws SQLException {
    try (PreparedStatement p = conn.prepareStatement("INSERT INTO t (n, s) VALUES (?, ?)")) {
      for (int i = 0; i < 500; i++) {
        p.setInt(1, i + 1000);
        p.setString(2, "batch " + i);
        p.addBatch();
      }
      check(p.executeBatch().length, 500, "batch");
    }
    try (PreparedStatement p = conn.prepareStatement(
            "SELECT COUNT(*), MIN(n), MAX(s) FROM t WHERE n >= ? AND s LIKE ?")) {
      p.setInt(1, 1100);
      p.setString(2, "batch%");
      try (ResultSet r = p.executeQuery()) {
        r.next();
        check(r.getLong(1), 400L, "count");
        check(r.getInt(2), 1100, "min");
        check(r.getString(3), "batch 499", "max");
      }
    }
    try (Statement s = conn.createStatement()) {
      check(s.executeUpdate("DELETE FROM t WHERE n >= 1000"), 500, "deleted");
    }
  }

  private static void metadata(Connection conn) throws SQLException {
    DatabaseMetaData meta = conn.getMetaData();
    try (ResultSet r = meta.getColumns("c_jdbc", null, "t", "%")) {
      int columns = 0;
      while (r.next()) {
        columns++;
      }
      check(columns, 10, "columns");
    }
    try (ResultSet r = meta.getPrimaryKeys("c_jdbc", null, "t")) {
      check(r.next(), true, "primary key");
      check(r.getString("COLUMN_NAME"), "id", "primary key");
    }
    try (ResultSet r = meta.getTables("c_jdbc", null, "%", new String[] {"TABLE"})) {
      check(r.next(), true, "table");
      check(r.getString("TABLE_NAME"), "t", "table");
    }
  }
}
