//! Disks whose syncs take long: a library that is loaded before the system's own and waits in `fsync` and `fdatasync` for as
//! many milliseconds as a file says.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::skip;

/// The file that says how long, by the name of this variable.
pub const DELAY_FILE: &str = "SLOW_DISK_FILE";

const SOURCE: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static void wait_as_told(void) {
    const char *path = getenv("SLOW_DISK_FILE");
    FILE *file = path ? fopen(path, "r") : NULL;
    int ms = 0;
    if (!file) return;
    if (fscanf(file, "%d", &ms) == 1 && ms > 0) usleep(1000 * ms);
    fclose(file);
}
int fsync(int fd) {
    static int (*real)(int);
    if (!real) real = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
    wait_as_told();
    return real(fd);
}
int fdatasync(int fd) {
    static int (*real)(int);
    if (!real) real = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
    wait_as_told();
    return real(fd);
}
"#;

/// Compiles the library; nothing, and loudly, without a C compiler.
pub fn library(dir: &Path) -> Option<PathBuf> {
    let (source, library) = (dir.join("slow_disk.c"), dir.join("slow_disk.so"));
    std::fs::write(&source, SOURCE).unwrap();
    let compiled =
        Command::new("cc").args(["-shared", "-fPIC", "-o"]).args([&library, &source]).arg("-ldl").output();
    match compiled {
        Ok(output) if output.status.success() => Some(library),
        Ok(output) => {
            skip("slow disks", &String::from_utf8_lossy(&output.stderr));
            None
        }
        Err(error) => {
            skip("slow disks", &format!("cc: {error}"));
            None
        }
    }
}
