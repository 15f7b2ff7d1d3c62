//! Tells the crate which LibTorch it is built against, and its programs where to find it.
//!
//! Without feature `libtorch` this does nothing.

#[path = "src/backend/version.rs"]
mod version;

use std::{env, fs, path::Path};

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=src/backend/version.rs");
    println!("cargo:rustc-check-cfg=cfg(libtorch_gpu)");
    // torch-sys says where it has found LibTorch, or where it has put what it downloaded.
    println!("cargo:rerun-if-env-changed=DEP_TCH_LIBTORCH_LIB");
    let Some(lib) = env::var_os("DEP_TCH_LIBTORCH_LIB") else {
        return;
    };
    let lib = Path::new(&lib);
    let read = |file: &Path| {
        println!("cargo:rerun-if-changed={}", file.display());
        fs::read_to_string(file).ok()
    };
    let found = lib.parent().and_then(|root| version::version(root, read));
    let found = found.unwrap_or_else(|| "of unknown version".to_string());
    println!("cargo:rustc-env=FEDAVG_LIBTORCH={found}");
    if lib.join("libtorch_cuda.so").exists() || lib.join("torch_cuda.dll").exists() {
        println!("cargo:rustc-cfg=libtorch_gpu");
    }
    let target = env::var("CARGO_CFG_TARGET_OS").unwrap_or_default();
    if target == "linux" || target == "macos" {
        // Programs start without LD_LIBRARY_PATH.
        println!("cargo:rustc-link-arg=-Wl,-rpath,{}", lib.display());
    }
    if target == "linux" {
        // Functions are bound when they are first called: a program that is started with another LibTorch gets as far as
        // saying so.
        println!("cargo:rustc-link-arg=-Wl,-z,lazy");
    }
}
