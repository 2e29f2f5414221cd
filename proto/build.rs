//! Compiles the `.proto` files without protoc.

const PACKAGES: [&str; 14] = [
    "metapb",
    "errorpb",
    "kvrpcpb",
    "deadlock",
    "coprocessor",
    "copr",
    "raft_serverpb",
    "tikvpb",
    "pdpb",
    "pdpeerpb",
    "keyspacepb",
    "mvccpb",
    "etcdserverpb",
    "health",
];

/// Kept out of line: what is rarely set and large, so that the answers of reads stay small in memory, and the requests and answers
/// of a stream, which otherwise take the room of the largest kind wherever they are moved to.
const BOXED: [&str; 5] = [
    "kvrpcpb.KvPair.error",
    "kvrpcpb.GetResponse.error",
    "kvrpcpb.GetResponse.exec_details_v2",
    "tikvpb.BatchCommandsRequest.Request.cmd",
    "tikvpb.BatchCommandsResponse.Response.cmd",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=protos");
    let files: Vec<String> = PACKAGES.iter().map(|p| format!("{p}.proto")).collect();
    let descriptors = protox::compile(files, ["protos"])?;
    let builder = tonic_prost_build::configure().bytes(".");
    let builder = BOXED.iter().fold(builder, |builder, field| builder.boxed(format!(".{field}")));
    builder.compile_fds(descriptors)?;
    Ok(())
}
