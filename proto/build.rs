//! Compiles the proto files with protox, so that no protoc is needed, and keeps the descriptor set for reflection
//! and for the protobuf JSON mapping.

use std::{env, error::Error, fs, path::PathBuf};

const FILES: [&str; 7] = [
    "slipway/common/v1/common.proto",
    "slipway/build/v1/build.proto",
    "slipway/gitops/v1/gitops.proto",
    "slipway/approval/v1/approval.proto",
    "slipway/deploy/v1/deploy.proto",
    "slipway/release/v1/release.proto",
    "slipway/operations/v1/operations.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=slipway");
    let descriptors = protox::compile(FILES, ["."])?;
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);
    fs::write(
        out.join("descriptors.bin"),
        protox::prost::Message::encode_to_vec(&descriptors),
    )?;
    tonic_prost_build::configure()
        .emit_rerun_if_changed(false)
        .compile_fds(descriptors)?;
    Ok(())
}
