//! Every system variable this server knows: its name, scopes, type and default. MySQL's names and defaults, except where the
//! comment says otherwise.

/// Where a variable has values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scopes {
    /// One value for the server.
    Global,
    /// One per session, no global.
    Session,
    /// A global one, copied into each new session.
    Both,
}

/// What values a variable takes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// ON or OFF.
    Bool,
    /// A number within bounds; what lies outside is cut, with a warning.
    UInt(u64, u64),
    /// A floating point number within bounds.
    Double(f64, f64),
    /// One of these words, or its number.
    Enum(&'static [&'static str]),
    /// Any text.
    Text,
    /// A character set's name.
    Charset,
    /// As `Charset`, or NULL.
    CharsetOrNull,
    /// A collation's name.
    Collation,
    /// `sql_mode`
    SqlMode,
    /// `time_zone`
    TimeZone,
    /// `transaction_isolation`
    Isolation,
    /// ON or OFF, and only the default is supported.
    FixedBool,
    /// Text, and only the default is supported.
    FixedText,
}

/// One system variable.
#[derive(Debug)]
pub struct Variable {
    /// In lower case.
    pub name: &'static str,
    /// Where it has values.
    pub scopes: Scopes,
    /// What values it takes.
    pub kind: Kind,
    /// As SHOW VARIABLES prints it.
    pub default: &'static str,
    /// SET refuses it.
    pub read_only: bool,
}

const fn both(name: &'static str, kind: Kind, default: &'static str) -> Variable {
    Variable { name, scopes: Scopes::Both, kind, default, read_only: false }
}

const fn global(name: &'static str, kind: Kind, default: &'static str) -> Variable {
    Variable { name, scopes: Scopes::Global, kind, default, read_only: false }
}

const fn session(name: &'static str, kind: Kind, default: &'static str) -> Variable {
    Variable { name, scopes: Scopes::Session, kind, default, read_only: false }
}

/// A global one that SET refuses.
const fn fixed(name: &'static str, kind: Kind, default: &'static str) -> Variable {
    Variable { name, scopes: Scopes::Global, kind, default, read_only: true }
}

use Kind::{
    Bool, Charset, CharsetOrNull, Collation, Double, Enum, FixedBool, FixedText, Isolation, SqlMode, Text,
    TimeZone, UInt,
};

const ANY: Kind = UInt(0, u64::MAX);
const YEAR_SECONDS: u64 = 31_536_000;

/// All of them, in alphabetical order.
pub const VARIABLES: &[Variable] = &[
    global("activate_all_roles_on_login", FixedBool, "OFF"),
    global("authentication_policy", FixedText, "*,,"),
    both("auto_increment_increment", UInt(1, 65_535), "1"),
    both("auto_increment_offset", UInt(1, 65_535), "1"),
    both("autocommit", Bool, "ON"),
    global("automatic_sp_privileges", Bool, "ON"),
    fixed("back_log", ANY, "1024"),
    fixed("basedir", Text, "/usr/"),
    both("big_tables", Bool, "OFF"),
    fixed("bind_address", Text, "*"),
    both("binlog_format", Enum(&["MIXED", "STATEMENT", "ROW"]), "ROW"),
    both("binlog_row_image", Enum(&["MINIMAL", "NOBLOB", "FULL"]), "FULL"),
    both("block_encryption_mode", Text, "aes-128-ecb"),
    both("bulk_insert_buffer_size", ANY, "8388608"),
    both("character_set_client", Charset, "utf8mb4"),
    both("character_set_connection", Charset, "utf8mb4"),
    both("character_set_database", Charset, "utf8mb4"),
    both("character_set_filesystem", Charset, "binary"),
    both("character_set_results", CharsetOrNull, "utf8mb4"),
    both("character_set_server", Charset, "utf8mb4"),
    fixed("character_set_system", Charset, "utf8mb3"),
    fixed("character_sets_dir", Text, ""),
    both("collation_connection", Collation, "utf8mb4_0900_ai_ci"),
    both("collation_database", Collation, "utf8mb4_0900_ai_ci"),
    both("collation_server", Collation, "utf8mb4_0900_ai_ci"),
    both("completion_type", Enum(&["NO_CHAIN", "CHAIN", "RELEASE"]), "NO_CHAIN"),
    global("concurrent_insert", Enum(&["NEVER", "AUTO", "ALWAYS"]), "AUTO"),
    global("connect_timeout", UInt(2, YEAR_SECONDS), "10"),
    both("cte_max_recursion_depth", UInt(0, 4_294_967_295), "1000"),
    fixed("datadir", Text, ""),
    both("default_collation_for_utf8mb4", Collation, "utf8mb4_0900_ai_ci"),
    global("default_password_lifetime", UInt(0, 65_535), "0"),
    both("default_storage_engine", Text, "InnoDB"),
    both("default_table_encryption", FixedBool, "OFF"),
    both("default_tmp_storage_engine", Text, "InnoDB"),
    both("default_week_format", UInt(0, 7), "0"),
    global("delay_key_write", Enum(&["OFF", "ON", "ALL"]), "ON"),
    fixed("disabled_storage_engines", Text, ""),
    both("div_precision_increment", UInt(0, 30), "4"),
    both("end_markers_in_json", Bool, "OFF"),
    both("eq_range_index_dive_limit", UInt(0, 4_294_967_295), "200"),
    session("error_count", UInt(0, 65_535), "0"),
    global("event_scheduler", Enum(&["OFF", "ON", "DISABLED"]), "OFF"),
    both("explain_format", Enum(&["TRADITIONAL", "TREE", "JSON", "TRADITIONAL_STRICT"]), "TRADITIONAL"),
    both("explicit_defaults_for_timestamp", FixedBool, "ON"),
    session("external_user", Text, ""),
    global("flush", Bool, "OFF"),
    both("foreign_key_checks", Bool, "ON"),
    global("ft_boolean_syntax", Text, "+ -><()~*:\"\"&|"),
    fixed("ft_max_word_len", ANY, "84"),
    fixed("ft_min_word_len", ANY, "4"),
    global("general_log", Bool, "OFF"),
    global("general_log_file", Text, ""),
    both("group_concat_max_len", UInt(4, u64::MAX), "1024"),
    global("gtid_executed", FixedText, ""),
    global("gtid_mode", FixedText, "OFF"),
    session("gtid_next", FixedText, "AUTOMATIC"),
    global("gtid_purged", FixedText, ""),
    fixed("have_compress", Text, "NO"),
    fixed("have_dynamic_loading", Text, "NO"),
    fixed("have_geometry", Text, "NO"),
    fixed("have_openssl", Text, "YES"),
    fixed("have_profiling", Text, "NO"),
    fixed("have_query_cache", Text, "NO"),
    fixed("have_rtree_keys", Text, "NO"),
    fixed("have_ssl", Text, "YES"),
    fixed("have_statement_timeout", Text, "YES"),
    fixed("have_symlink", Text, "DISABLED"),
    fixed("hostname", Text, "localhost"),
    session("identity", ANY, "0"),
    both("information_schema_stats_expiry", UInt(0, YEAR_SECONDS), "86400"),
    global("init_connect", FixedText, ""),
    fixed("init_file", Text, ""),
    fixed("innodb_autoinc_lock_mode", ANY, "2"),
    fixed("innodb_buffer_pool_size", ANY, "134217728"),
    global("innodb_default_row_format", Text, "dynamic"),
    global("innodb_fast_shutdown", UInt(0, 2), "1"),
    fixed("innodb_file_per_table", Bool, "ON"),
    fixed("innodb_flush_log_at_trx_commit", ANY, "1"),
    fixed("innodb_force_recovery", ANY, "0"),
    both("innodb_lock_wait_timeout", UInt(1, 1_073_741_824), "50"),
    fixed("innodb_page_size", ANY, "16384"),
    fixed("innodb_read_only", Bool, "OFF"),
    fixed("innodb_rollback_on_timeout", Bool, "OFF"),
    both("innodb_strict_mode", Bool, "ON"),
    fixed("innodb_version", Text, "8.4.6"),
    session("insert_id", ANY, "0"),
    both("interactive_timeout", UInt(1, YEAR_SECONDS), "28800"),
    both("join_buffer_size", ANY, "262144"),
    both("keep_files_on_create", Bool, "OFF"),
    global("key_buffer_size", ANY, "8388608"),
    fixed("large_files_support", Bool, "ON"),
    session("last_insert_id", ANY, "0"),
    // Of this server: the plan of the statement before was made for another one.
    Variable {
        name: "last_plan_from_cache",
        scopes: Scopes::Session,
        kind: Bool,
        default: "OFF",
        read_only: true,
    },
    both("lc_messages", Text, "en_US"),
    both("lc_time_names", FixedText, "en_US"),
    fixed("license", Text, "Apache-2.0"),
    global("local_infile", Bool, "ON"),
    both("lock_wait_timeout", UInt(1, YEAR_SECONDS), "31536000"),
    global("log_bin", FixedBool, "OFF"),
    fixed("log_error", Text, "stderr"),
    global("log_output", Text, "FILE"),
    global("log_queries_not_using_indexes", Bool, "OFF"),
    both("long_query_time", Double(0.0, 31_536_000.0), "10.000000"),
    both("low_priority_updates", Bool, "OFF"),
    fixed("lower_case_file_system", Bool, "OFF"),
    // Names are found in any letter case, and keep the case they were given.
    fixed("lower_case_table_names", ANY, "2"),
    global("mandatory_roles", FixedText, ""),
    both("max_allowed_packet", UInt(1024, 1 << 30), "67108864"),
    global("max_connect_errors", ANY, "100"),
    global("max_connections", UInt(1, 100_000), "4096"),
    both("max_error_count", UInt(0, 65_535), "1024"),
    both("max_execution_time", UInt(0, 4_294_967_295), "0"),
    both("max_heap_table_size", ANY, "16777216"),
    both("max_join_size", ANY, "18446744073709551615"),
    both("max_length_for_sort_data", ANY, "4096"),
    global("max_prepared_stmt_count", UInt(0, 4_194_304), "16382"),
    both("max_seeks_for_key", ANY, "18446744073709551615"),
    both("max_sort_length", ANY, "1024"),
    both("max_sp_recursion_depth", UInt(0, 255), "0"),
    both("max_user_connections", UInt(0, 4_294_967_295), "0"),
    both("net_buffer_length", UInt(1024, 1_048_576), "16384"),
    both("net_read_timeout", UInt(1, YEAR_SECONDS), "30"),
    both("net_retry_count", ANY, "10"),
    both("net_write_timeout", UInt(1, YEAR_SECONDS), "60"),
    fixed("ngram_token_size", ANY, "2"),
    global("offline_mode", FixedBool, "OFF"),
    both("old_alter_table", Bool, "OFF"),
    fixed("open_files_limit", ANY, "1048576"),
    both("optimizer_prune_level", UInt(0, 1), "1"),
    both("optimizer_search_depth", UInt(0, 62), "62"),
    both("optimizer_switch", Text, "index_merge=on,hash_join=on,semijoin=on,derived_merge=on"),
    both("optimizer_trace", Text, "enabled=off,one_line=off"),
    fixed("performance_schema", Bool, "OFF"),
    fixed("pid_file", Text, ""),
    fixed("plugin_dir", Text, ""),
    fixed("port", ANY, "4000"),
    both("preload_buffer_size", ANY, "32768"),
    both("profiling", FixedBool, "OFF"),
    both("profiling_history_size", UInt(0, 100), "15"),
    fixed("protocol_version", ANY, "10"),
    session("proxy_user", Text, ""),
    session("pseudo_slave_mode", Bool, "OFF"),
    session("pseudo_thread_id", ANY, "0"),
    both("query_alloc_block_size", ANY, "8192"),
    both("query_prealloc_size", ANY, "8192"),
    session("rand_seed1", ANY, "0"),
    session("rand_seed2", ANY, "0"),
    both("range_alloc_block_size", ANY, "4096"),
    both("range_optimizer_max_mem_size", ANY, "8388608"),
    both("read_buffer_size", ANY, "131072"),
    global("read_only", FixedBool, "OFF"),
    both("read_rnd_buffer_size", ANY, "262144"),
    global("regexp_stack_limit", ANY, "8000000"),
    global("regexp_time_limit", ANY, "32"),
    global("require_secure_transport", Bool, "OFF"),
    session("resultset_metadata", FixedText, "FULL"),
    // Tables are analyzed when so much of them has changed, from so many rows on.
    global("rutile_auto_analyze", Bool, "ON"),
    global("rutile_auto_analyze_min_rows", UInt(1, u64::MAX), "1000"),
    global("rutile_auto_analyze_ratio", Double(0.0, 100.0), "0.5"),
    // Of this server: whether stores filter, group and sort their rows; off moves all rows here.
    both("rutile_coprocessor", Bool, "ON"),
    // Of this server: seconds; SELECT outside a transaction may read data of this long ago, from any replica. 0: of now.
    both("rutile_read_staleness", UInt(0, 86_400), "0"),
    // Of this server: which replicas SELECT reads.
    both("rutile_replica_read", Enum(&["leader", "follower", "leader-and-follower"]), "leader"),
    // Of this server: regions that one scan reads at once.
    both("rutile_scan_concurrency", UInt(1, 256), "8"),
    // Of this server: lets SET ask for SERIALIZABLE or READ UNCOMMITTED and get REPEATABLE READ.
    both("rutile_skip_isolation_level_check", Bool, "OFF"),
    // A text whose values alone are new is not planned again.
    both("rutile_text_plan_cache", Bool, "ON"),
    // Of this server: whether BEGIN starts a pessimistic or an optimistic transaction.
    both("rutile_txn_mode", Enum(&["pessimistic", "optimistic"]), "pessimistic"),
    fixed("secure_file_priv", CharsetOrNull, "NULL"),
    both("select_into_buffer_size", ANY, "131072"),
    global("server_id", UInt(0, 4_294_967_295), "1"),
    fixed("server_id_bits", ANY, "32"),
    fixed("server_uuid", Text, "00000000-0000-0000-0000-000000000000"),
    both("session_track_gtids", FixedText, "OFF"),
    both("session_track_schema", Bool, "ON"),
    both("session_track_state_change", FixedBool, "OFF"),
    both(
        "session_track_system_variables",
        Text,
        "time_zone,autocommit,character_set_client,character_set_results,character_set_connection",
    ),
    both("session_track_transaction_info", FixedText, "OFF"),
    both("show_create_table_verbosity", Bool, "OFF"),
    both("show_old_temporals", Bool, "OFF"),
    fixed("skip_external_locking", Bool, "ON"),
    fixed("skip_name_resolve", Bool, "ON"),
    fixed("skip_networking", Bool, "OFF"),
    fixed("skip_show_database", Bool, "OFF"),
    global("slow_query_log", Bool, "OFF"),
    global("slow_query_log_file", Text, ""),
    fixed("socket", Text, ""),
    both("sort_buffer_size", ANY, "262144"),
    both("sql_auto_is_null", FixedBool, "OFF"),
    both("sql_big_selects", Bool, "ON"),
    both("sql_buffer_result", Bool, "OFF"),
    both("sql_generate_invisible_primary_key", FixedBool, "OFF"),
    session("sql_log_bin", Bool, "ON"),
    both("sql_log_off", Bool, "OFF"),
    both(
        "sql_mode",
        SqlMode,
        "ONLY_FULL_GROUP_BY,STRICT_TRANS_TABLES,NO_ZERO_IN_DATE,NO_ZERO_DATE,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION",
    ),
    both("sql_notes", Bool, "ON"),
    both("sql_quote_show_create", FixedBool, "ON"),
    both("sql_require_primary_key", FixedBool, "OFF"),
    both("sql_safe_updates", Bool, "OFF"),
    both("sql_select_limit", ANY, "18446744073709551615"),
    both("sql_warnings", Bool, "OFF"),
    fixed("ssl_ca", Text, ""),
    fixed("ssl_cert", Text, ""),
    fixed("ssl_key", Text, ""),
    global("stored_program_cache", ANY, "256"),
    global("super_read_only", FixedBool, "OFF"),
    fixed("sync_binlog", ANY, "1"),
    fixed("system_time_zone", Text, "UTC"),
    global("table_definition_cache", ANY, "2000"),
    global("table_open_cache", ANY, "4000"),
    global("thread_cache_size", ANY, "100"),
    fixed("thread_handling", Text, "one-thread-per-connection"),
    fixed("thread_stack", ANY, "1048576"),
    both("time_zone", TimeZone, "SYSTEM"),
    session("timestamp", Double(0.0, 32_536_771_199.0), "0"),
    both("tmp_table_size", ANY, "16777216"),
    fixed("tls_version", Text, "TLSv1.2,TLSv1.3"),
    fixed("tmpdir", Text, "/tmp"),
    both("transaction_alloc_block_size", ANY, "8192"),
    session("transaction_allow_batching", Bool, "OFF"),
    both("transaction_isolation", Isolation, "REPEATABLE-READ"),
    both("transaction_prealloc_size", ANY, "4096"),
    both("transaction_read_only", Bool, "OFF"),
    // The names of MySQL 5.7, which older drivers still read and set.
    both("tx_isolation", Isolation, "REPEATABLE-READ"),
    both("tx_read_only", Bool, "OFF"),
    both("unique_checks", Bool, "ON"),
    both("updatable_views_with_limit", Bool, "YES"),
    both("use_secondary_engine", Text, "ON"),
    fixed("version", Text, ""),
    fixed("version_comment", Text, ""),
    fixed("version_compile_machine", Text, std::env::consts::ARCH),
    fixed("version_compile_os", Text, "Linux"),
    fixed("version_compile_zlib", Text, ""),
    both("wait_timeout", UInt(1, YEAR_SECONDS), "28800"),
    session("warning_count", UInt(0, 65_535), "0"),
    both("windowing_use_high_precision", Bool, "ON"),
];

/// The variable with this name in any letter case.
pub fn find(name: &str) -> Option<&'static Variable> {
    VARIABLES.iter().find(|variable| variable.name.eq_ignore_ascii_case(name))
}
