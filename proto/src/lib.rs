//! Slipway's gRPC API: the messages and services generated from the `.proto` files beside this crate.
#![allow(missing_debug_implementations, clippy::all)]

/// The compiled files as a `google.protobuf.FileDescriptorSet`, for reflection and for the protobuf JSON mapping.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

pub mod common {
    pub mod v1 {
        tonic::include_proto!("slipway.common.v1");
    }
}
pub mod build {
    pub mod v1 {
        tonic::include_proto!("slipway.build.v1");
    }
}
pub mod gitops {
    pub mod v1 {
        tonic::include_proto!("slipway.gitops.v1");
    }
}
pub mod approval {
    pub mod v1 {
        tonic::include_proto!("slipway.approval.v1");
    }
}
pub mod deploy {
    pub mod v1 {
        tonic::include_proto!("slipway.deploy.v1");
    }
}
pub mod release {
    pub mod v1 {
        tonic::include_proto!("slipway.release.v1");
    }
}
pub mod operations {
    pub mod v1 {
        tonic::include_proto!("slipway.operations.v1");
    }
}
