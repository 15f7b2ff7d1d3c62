//! Machines of their own on this one: network namespaces (Linux, `ip`, root) on a bridge, whose links can be cut.

use std::{
    io::{self, Write},
    path::Path,
    process::{self, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

use super::deployment::binary;

/// What every machine here shows, or wants to be shown.
pub const TOKEN: &str = "token-of-the-tailnet";

/// How the names of all namespaces begin; then come the process's id, a number of the network, and the machine.
const PREFIX: &str = "fedavg-test";

/// A machine: what runs in its namespace sees its interfaces alone.
#[derive(Clone)]
pub struct Machine {
    namespace: String,
}

impl Machine {
    /// A binary with these arguments on this machine, with the token in its environment.
    pub fn command(&self, path: &str, arguments: &str) -> Command {
        let inner = binary(path, arguments);
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace]);
        command.arg(inner.get_program()).args(inner.get_args());
        for (name, value) in inner.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command.env("FEDAVG_JOIN_TOKEN", TOKEN);
        command
    }

    /// Runs `ip` on this machine's interfaces.
    pub fn ip(&self, arguments: &str) -> Result<(), String> {
        ip(&format!("-n {} {arguments}", self.namespace))
    }
}

/// Namespaces that end with their test, also if it panics. Processes in them must be dropped before.
pub struct Namespaces {
    prefix: String,
    made: Vec<String>,
}

impl Namespaces {
    /// None yet.
    fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        remove_stale();
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("{PREFIX}-{}-{number}", process::id());
        Self {
            prefix,
            made: Vec::new(),
        }
    }

    fn machine(&mut self, name: &str) -> Result<Machine, String> {
        let namespace = format!("{}-{name}", self.prefix);
        // One that a killed process with this id has left behind; mostly there is none.
        let _ = ip(&format!("netns del {namespace}"));
        ip(&format!("netns add {namespace}"))?;
        self.made.push(namespace.clone());
        let machine = Machine { namespace };
        machine.ip("link set lo up")?;
        // Whether a program may be started there, too.
        ip(&format!("netns exec {} true", machine.namespace))?;
        Ok(machine)
    }

    /// A machine with this address beside loopback, and no network. None, with a line that says why, if this machine
    /// can't have namespaces.
    pub fn lonely(address: &str) -> Option<(Self, Machine)> {
        let mut namespaces = Self::new();
        let made = namespaces.machine("lonely").and_then(|machine| {
            machine.ip(&format!("address add {address} dev lo"))?;
            Ok(machine)
        });
        made.map(|machine| (namespaces, machine)).map_err(skip).ok()
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        for namespace in &self.made {
            // Its interfaces go with it. An error must not hide why the test failed.
            let _ = ip(&format!("netns del {namespace}"));
        }
    }
}

/// Machines on one network, with addresses such as Tailscale assigns: 100.64.0.1 and so on.
pub struct Tailnet {
    pub machines: Vec<Machine>,
    switch: Machine,
    _namespaces: Namespaces,
}

impl Tailnet {
    /// None, with a line that says why, if this machine can't have it.
    pub fn start(machines: usize) -> Option<Self> {
        Self::make(machines).map_err(skip).ok()
    }

    fn make(count: usize) -> Result<Self, String> {
        let mut namespaces = Namespaces::new();
        // The bridge has a namespace of its own, so that this machine's firewall is of no consequence.
        let switch = namespaces.machine("switch")?;
        switch.ip("link add bridge type bridge")?;
        switch.ip("link set bridge up")?;
        let mut machines = Vec::new();
        for number in 1..=count {
            let machine = namespaces.machine(&number.to_string())?;
            let peer = &machine.namespace;
            switch.ip(&format!(
                "link add port{number} type veth peer name tailscale0 netns {peer}"
            ))?;
            switch.ip(&format!("link set port{number} master bridge up"))?;
            machine.ip(&format!("address add 100.64.0.{number}/10 dev tailscale0"))?;
            machine.ip("link set tailscale0 up")?;
            machines.push(machine);
        }
        Ok(Self {
            machines,
            switch,
            _namespaces: namespaces,
        })
    }

    /// Cuts a machine's link (from 0): what is sent is lost, and no connection is told.
    pub fn cut(&self, machine: usize) {
        self.set(machine, "down");
    }

    /// Mends it.
    pub fn mend(&self, machine: usize) {
        self.set(machine, "up");
    }

    fn set(&self, machine: usize, state: &str) {
        let port = machine + 1;
        self.switch
            .ip(&format!("link set port{port} {state}"))
            .unwrap();
    }
}

/// Removes what killed processes have left behind.
fn remove_stale() {
    let Ok(listed) = Command::new("ip").args(["netns", "list"]).output() else {
        return;
    };
    for line in String::from_utf8_lossy(&listed.stdout).lines() {
        let name = line.split_whitespace().next().unwrap_or_default();
        let id = name
            .strip_prefix(PREFIX)
            .and_then(|rest| rest.split('-').nth(1));
        if id.is_some_and(|id| !Path::new("/proc").join(id).exists()) {
            let _ = ip(&format!("netns del {name}"));
        }
    }
}

fn ip(arguments: &str) -> Result<(), String> {
    let mut command = Command::new("ip");
    command
        .args(arguments.split_whitespace())
        .stdin(Stdio::null());
    let output = command
        .output()
        .map_err(|error| format!("no ip: {error}"))?;
    if output.status.success() {
        Ok(())
    } else {
        let said = String::from_utf8_lossy(&output.stderr);
        Err(format!("ip {arguments}: {}", said.trim()))
    }
}

/// Says that a test tests nothing here. Written past the harness, which hides what passing tests print by `eprintln!`.
fn skip(reason: String) {
    let name = std::thread::current()
        .name()
        .unwrap_or("a test")
        .to_string();
    let line = format!("SKIPPED {name}: no network namespaces here: {reason}\n");
    io::stderr().write_all(line.as_bytes()).unwrap();
}
