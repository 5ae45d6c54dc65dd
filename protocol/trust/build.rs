//! Compiles what is sealed with protox, so that no system `protoc` is needed.

const STATEMENTS: &str = "skep/trust/v1/trust.proto";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=../proto/{STATEMENTS}");
    println!("cargo:rerun-if-changed=build.rs");
    let out = std::path::PathBuf::from(std::env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);
    let mut compiler = protox::Compiler::new(["../proto"])?;
    compiler.include_source_info(true).open_file(STATEMENTS)?;
    let set = compiler.file_descriptor_set();
    compiler.include_source_info(false);
    std::fs::write(out.join("trust.bin"), compiler.encode_file_descriptor_set())?;
    // Statements share the bytes of the message that they came in.
    prost_build::Config::new().bytes([".skep.trust.v1.SealedStatement.body"]).compile_fds(set)?;
    Ok(())
}
