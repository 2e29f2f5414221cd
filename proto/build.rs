//! Compiles the `.proto` files without protoc.

const PACKAGES: [&str; 12] = [
    "metapb",
    "errorpb",
    "kvrpcpb",
    "coprocessor",
    "raft_serverpb",
    "tikvpb",
    "pdpb",
    "pdpeerpb",
    "keyspacepb",
    "mvccpb",
    "etcdserverpb",
    "health",
];

/// Rarely set and large: kept out of line, so that the answers of reads stay small in memory.
const BOXED: [&str; 3] =
    ["kvrpcpb.KvPair.error", "kvrpcpb.GetResponse.error", "kvrpcpb.GetResponse.exec_details_v2"];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=protos");
    let files: Vec<String> = PACKAGES.iter().map(|p| format!("{p}.proto")).collect();
    let descriptors = protox::compile(files, ["protos"])?;
    let builder = tonic_prost_build::configure().bytes(".");
    let builder = BOXED.iter().fold(builder, |builder, field| builder.boxed(format!(".{field}")));
    builder.compile_fds(descriptors)?;
    Ok(())
}
