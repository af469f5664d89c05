//! The messages of distribution, made of the files in `agent/control/proto` by `cargo xtask codegen`. Modules are named
//! after the packages.

#![expect(unreachable_pub, reason = "generated")]

mod envoy {
    pub mod service {
        pub mod discovery {
            pub mod v3;
        }
    }
}
mod google {
    pub mod rpc;
}
mod undermesh {
    pub mod distribution {
        pub mod v1;
    }
}

pub(super) use envoy::service::discovery::v3::*;
pub(super) use google::rpc;
pub(super) use undermesh::distribution::v1::*;
