//! Compiles what operators sign with protox, so that no system `protoc` is needed.

const STATEMENTS: &str = "skep/v1/statements.proto";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto/{STATEMENTS}");
    println!("cargo:rerun-if-changed=build.rs");
    let out = std::path::PathBuf::from(std::env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);
    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler.include_source_info(true).open_file(STATEMENTS)?;
    let set = compiler.file_descriptor_set();
    compiler.include_source_info(false);
    std::fs::write(out.join("statements.bin"), compiler.encode_file_descriptor_set())?;
    // Arguments share the bytes of the statement that they are a part of.
    prost_build::Config::new().bytes([".skep.v1.CommandStatement.args"]).compile_fds(set)?;
    Ok(())
}
