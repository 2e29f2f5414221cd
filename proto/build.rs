//! Compiles the `.proto` files without protoc.

const PACKAGES: [&str; 11] = [
    "metapb",
    "errorpb",
    "kvrpcpb",
    "coprocessor",
    "raft_serverpb",
    "tikvpb",
    "pdpb",
    "keyspacepb",
    "mvccpb",
    "etcdserverpb",
    "health",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=protos");
    let files: Vec<String> = PACKAGES.iter().map(|p| format!("{p}.proto")).collect();
    let descriptors = protox::compile(files, ["protos"])?;
    tonic_prost_build::configure().bytes(".").compile_fds(descriptors)?;
    Ok(())
}
