//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// A MySQL-compatible distributed SQL database. Without a command: the playground.
#[derive(Debug, Parser)]
#[command(name = "rutile", version, args_conflicts_with_subcommands = true)]
pub struct Cli {
    /// What to run; the playground when it is left out.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Options of the playground.
    #[command(flatten)]
    pub playground: PlaygroundArgs,
}

/// The processes of a cluster, and the tool to look at it.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// A whole database in one process: placement driver, stores and SQL server.
    Playground(PlaygroundArgs),
    /// A placement driver.
    Pd(PdArgs),
    /// A store.
    Kv(KvArgs),
    /// A SQL server.
    Sql(SqlArgs),
    /// Looks at a running cluster.
    Ctl(CtlArgs),
}

/// What all processes understand.
#[derive(Debug, Default, Clone, Args)]
pub struct CommonArgs {
    /// TOML file; flags win over it.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Print the configuration with all defaults and end.
    #[arg(long)]
    pub print_config: bool,
    /// error, warn, info, debug, trace, or a filter like info,rutile_kv=debug.
    #[arg(long, value_name = "LEVEL")]
    pub log_level: Option<String>,
}

/// Options of the playground.
#[derive(Debug, Default, Clone, Args)]
pub struct PlaygroundArgs {
    /// What all processes understand.
    #[command(flatten)]
    pub common: CommonArgs,
    /// Where the data is kept [default: ./rutile-data].
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// How many stores; replicas are the smaller of 3 and this [default: 1].
    #[arg(long, value_name = "N")]
    pub kv: Option<usize>,
    /// Address to listen on [default: 127.0.0.1].
    #[arg(long)]
    pub host: Option<String>,
    /// MySQL protocol [default: 4000].
    #[arg(long, value_name = "PORT")]
    pub sql_port: Option<u16>,
    /// HTTP status [default: 10080].
    #[arg(long, value_name = "PORT")]
    pub status_port: Option<u16>,
    /// Placement driver, gRPC and HTTP [default: 2379].
    #[arg(long, value_name = "PORT")]
    pub pd_port: Option<u16>,
    /// First store, gRPC; store i listens on this + i [default: 20160].
    #[arg(long, value_name = "PORT")]
    pub kv_port: Option<u16>,
    /// Keep the data in a temporary directory that goes with the process.
    #[arg(long)]
    pub ephemeral: bool,
}

/// Options of a placement driver.
#[derive(Debug, Default, Clone, Args)]
pub struct PdArgs {
    /// What all processes understand.
    #[command(flatten)]
    pub common: CommonArgs,
    /// This member's name.
    #[arg(long)]
    pub name: Option<String>,
    /// Where the data is kept.
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// host:port for clients, gRPC and HTTP.
    #[arg(long, value_name = "HOST:PORT")]
    pub client_addr: Option<String>,
    /// host:port that clients are told, if it differs.
    #[arg(long, value_name = "HOST:PORT")]
    pub advertise_client_addr: Option<String>,
    /// host:port for the other members.
    #[arg(long, value_name = "HOST:PORT")]
    pub peer_addr: Option<String>,
    /// name=http://host:port,… of all members.
    #[arg(long, value_name = "MEMBERS")]
    pub initial_cluster: Option<String>,
}

/// Options of a store.
#[derive(Debug, Default, Clone, Args)]
pub struct KvArgs {
    /// What all processes understand.
    #[command(flatten)]
    pub common: CommonArgs,
    /// Where the data is kept.
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// host:port of the service.
    #[arg(long, value_name = "HOST:PORT")]
    pub addr: Option<String>,
    /// host:port that others are told, if it differs.
    #[arg(long, value_name = "HOST:PORT")]
    pub advertise_addr: Option<String>,
    /// host:port of the HTTP status.
    #[arg(long, value_name = "HOST:PORT")]
    pub status_addr: Option<String>,
    /// Placement drivers [default: 127.0.0.1:2379].
    #[arg(long, value_name = "HOST:PORT,…", value_delimiter = ',')]
    pub pd: Vec<String>,
    /// Where the store is, such as zone=z1,host=h1.
    #[arg(long, value_name = "KEY=VALUE,…", value_delimiter = ',')]
    pub labels: Vec<String>,
}

/// Options of a SQL server.
#[derive(Debug, Default, Clone, Args)]
pub struct SqlArgs {
    /// What all processes understand.
    #[command(flatten)]
    pub common: CommonArgs,
    /// host:port of the MySQL protocol.
    #[arg(long, value_name = "HOST:PORT")]
    pub addr: Option<String>,
    /// host:port of the HTTP status.
    #[arg(long, value_name = "HOST:PORT")]
    pub status_addr: Option<String>,
    /// Placement drivers [default: 127.0.0.1:2379].
    #[arg(long, value_name = "HOST:PORT,…", value_delimiter = ',')]
    pub pd: Vec<String>,
}

/// Options of the tool.
#[derive(Debug, Clone, Args)]
pub struct CtlArgs {
    /// Placement drivers.
    #[arg(
        long,
        global = true,
        default_value = "127.0.0.1:2379",
        value_name = "HOST:PORT,…",
        value_delimiter = ','
    )]
    pub pd: Vec<String>,
    /// What to show.
    #[command(subcommand)]
    pub command: CtlCommand,
}

/// What can be shown and changed.
#[derive(Debug, Clone, Subcommand)]
pub enum CtlCommand {
    /// The placement driver's members.
    Members,
    /// All stores: capacity, leaders, regions, state.
    Stores,
    /// One store.
    Store {
        /// What to do with it.
        #[command(subcommand)]
        command: StoreCommand,
    },
    /// All regions, in key order.
    Regions {
        /// At most so many; 0 = all.
        #[arg(long, default_value_t = 0)]
        limit: i32,
    },
    /// One region.
    Region {
        /// By what it is looked up.
        #[command(subcommand)]
        by: RegionBy,
    },
    /// What is being done to regions.
    Operators {
        /// What to do with them; shows them when left out.
        #[command(subcommand)]
        command: Option<OperatorCommand>,
    },
    /// The schedulers.
    Scheduler {
        /// What to do with them.
        #[command(subcommand)]
        command: SchedulerCommand,
    },
    /// All versions and the lock of a key: text, or hexadecimal after 0x.
    Mvcc {
        /// The key as clients give it.
        key: String,
    },
    /// A fresh timestamp.
    Tso,
    /// The placement driver's configuration.
    Config {
        /// What to do with it; shows it when left out.
        #[command(subcommand)]
        command: Option<ConfigCommand>,
    },
}

/// What can be done with a store.
#[derive(Debug, Clone, Subcommand)]
pub enum StoreCommand {
    /// Shows it.
    Show {
        /// The store's id.
        id: u64,
    },
    /// Moves everything off it; then it is gone for good.
    Decommission {
        /// The store's id.
        id: u64,
        /// Shows the progress until it is empty.
        #[arg(long)]
        wait: bool,
    },
    /// Shows what it still holds.
    Progress {
        /// The store's id.
        id: u64,
    },
    /// Lets a store stay that was to be decommissioned.
    Keep {
        /// The store's id.
        id: u64,
    },
}

/// What can be done with operators.
#[derive(Debug, Clone, Subcommand)]
pub enum OperatorCommand {
    /// Shows those under way, or the newest one of a region.
    Show {
        /// The region's id.
        region: Option<u64>,
    },
    /// Shows those that ended.
    History,
    /// Starts one.
    Add {
        /// Which.
        #[command(subcommand)]
        operator: NewOperator,
    },
    /// Ends the one of a region.
    Cancel {
        /// The region's id.
        region: u64,
    },
}

/// Operators that can be started by hand.
#[derive(Debug, Clone, Subcommand)]
pub enum NewOperator {
    /// Lets a peer take the lead.
    TransferLeader {
        /// The region's id.
        region: u64,
        /// The store of the peer.
        store: u64,
    },
    /// Adds a peer.
    AddPeer {
        /// The region's id.
        region: u64,
        /// The store of the new peer.
        store: u64,
    },
    /// Removes a peer.
    RemovePeer {
        /// The region's id.
        region: u64,
        /// The store of the peer.
        store: u64,
    },
    /// Moves a peer.
    TransferPeer {
        /// The region's id.
        region: u64,
        /// The store of the peer.
        from: u64,
        /// The store of the new peer.
        to: u64,
    },
    /// Cuts a region in two or more.
    Split {
        /// The region's id.
        region: u64,
        /// Keys as clients give them in transactions: text, hexadecimal after 0x, or table: and a table (its id, or database.table).
        /// The store chooses when left out.
        keys: Vec<String>,
    },
    /// Makes a region part of its neighbour.
    Merge {
        /// The region's id.
        region: u64,
        /// The neighbour's id.
        target: u64,
    },
    /// Spreads regions over the stores.
    Scatter {
        /// The regions' ids.
        #[arg(required = true)]
        regions: Vec<u64>,
    },
}

/// What can be done with schedulers.
#[derive(Debug, Clone, Subcommand)]
pub enum SchedulerCommand {
    /// Shows which are on.
    List,
    /// Switches one on.
    On {
        /// Its name.
        name: String,
    },
    /// Switches one off.
    Off {
        /// Its name.
        name: String,
    },
}

/// What can be done with the configuration.
#[derive(Debug, Clone, Subcommand)]
pub enum ConfigCommand {
    /// Shows it.
    Show,
    /// Changes one setting of the schedulers.
    Set {
        /// Its name, such as max-replicas.
        name: String,
        /// Its value; lists are separated by commas.
        value: String,
    },
}

/// How a region is looked up.
#[derive(Debug, Clone, Subcommand)]
pub enum RegionBy {
    /// By its id.
    Id {
        /// The region's id.
        id: u64,
    },
    /// By a key: text, or hexadecimal after 0x. As clients give it in transactions.
    Key {
        /// The key.
        key: String,
    },
    /// The regions that hold a table.
    Table {
        /// The table's id, or database.table.
        table: String,
    },
}
