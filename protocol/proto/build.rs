//! Compiles the protobuf definitions with protox, so that no system `protoc` is needed.

/// What operators sign. The crate of the vocabulary compiles these messages itself: it keeps and verifies statements,
/// and knows no transport.
const STATEMENTS: &str = "skep/v1/statements.proto";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=skep");
    println!("cargo:rerun-if-changed=build.rs");
    let out = std::path::PathBuf::from(std::env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);
    let mut compiler = protox::Compiler::new(["."])?;
    compiler.include_imports(true).include_source_info(true);
    compiler.open_files([
        "skep/v1/tasks.proto",
        "skep/v1/agents.proto",
        "skep/v1/commands.proto",
        "skep/v1/topics.proto",
        "skep/v1/nodes.proto",
        "skep/v1/site.proto",
        STATEMENTS,
    ])?;
    let set = compiler.file_descriptor_set();
    compiler.include_source_info(false);
    std::fs::write(out.join("skep.v1.bin"), compiler.encode_file_descriptor_set())?;
    let mut build = tonic_prost_build::configure().build_transport(false);
    for message in set.file.iter().filter(|file| file.name() == STATEMENTS).flat_map(|file| &file.message_type) {
        let name = message.name();
        build = build.extern_path(format!(".skep.v1.{name}"), format!("::skep_protocol::stated::v1::{name}"));
    }
    build.compile_fds(set)?;
    Ok(())
}
