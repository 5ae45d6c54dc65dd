//! Compiles the protobuf definitions with protox, so that no system `protoc` is needed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    println!("cargo:rerun-if-changed=build.rs");
    let out = std::path::PathBuf::from(std::env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);
    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler.include_imports(true).include_source_info(true);
    compiler.open_files([
        "skep/v1/tasks.proto",
        "skep/v1/agents.proto",
        "skep/v1/commands.proto",
        "skep/v1/topics.proto",
        "skep/v1/nodes.proto",
        "skep/v1/statements.proto",
    ])?;
    let set = compiler.file_descriptor_set();
    compiler.include_source_info(false);
    std::fs::write(out.join("skep.v1.bin"), compiler.encode_file_descriptor_set())?;
    // Arguments share the bytes of the statement that they are a part of.
    let build = tonic_prost_build::configure().bytes(".skep.v1.CommandStatement.args");
    build.build_transport(false).compile_fds(set)?;
    Ok(())
}
