//! Services and nodes that change at random: what can be asked for, and the next change. Pure.

use std::collections::BTreeSet;

use akrobateo_core::Protocol;
use akrobateo_core::annotations::{IP_MODE, NODE_SELECTOR, PRIORITY_CLASS, WORKLOAD};
use e2e::{POOL_LABEL, ServiceBuilder, service};
use fastrand::Rng;

/// Few enough Services and ports that they get into each other's way.
const SERVICES: usize = 8;
pub(crate) const PORTS: usize = 7;

/// What happens to the cluster.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    /// A Service is made, or made to be like this.
    Apply(ServiceBuilder),
    /// It is deleted.
    Delete(ServiceBuilder),
    /// It is deleted, and another one of the same name made.
    Replace(ServiceBuilder),
    /// A node, by its number, joins a pool or leaves its own.
    Pool(usize, Option<&'static str>),
}

/// One Service, as it was last asked for.
#[derive(Clone, Debug)]
struct Wish {
    ports: BTreeSet<(bool, u16)>,
    load_balancer: bool,
    class: Option<&'static str>,
    selector: Option<&'static str>,
    workload: Option<&'static str>,
    ip_mode: Option<&'static str>,
    priority_class: Option<&'static str>,
    local: bool,
}

/// All Services.
pub(crate) struct Model {
    random: Rng,
    ports: [u16; PORTS],
    wishes: [Option<Wish>; SERVICES],
}

impl Model {
    pub(crate) fn new(seed: u64, ports: [u16; PORTS]) -> Self {
        Self { random: Rng::with_seed(seed), ports, wishes: Default::default() }
    }

    /// The next change.
    pub(crate) fn change(&mut self, nodes: usize) -> Change {
        if self.random.u8(..16) == 0 {
            let pools = [None, Some("edge"), Some("core")];
            return Change::Pool(self.random.usize(..nodes), pools[self.random.usize(..pools.len())]);
        }
        let index = self.random.usize(..SERVICES);
        let Some(mut wish) = self.wishes[index].take() else {
            let wish = self.new_wish();
            self.wishes[index] = Some(wish.clone());
            return Change::Apply(wish.build(index));
        };
        if self.random.u8(..8) == 0 {
            return Change::Delete(wish.build(index));
        }
        let replaced = self.edit(&mut wish);
        self.wishes[index] = Some(wish.clone());
        if replaced { Change::Replace(wish.build(index)) } else { Change::Apply(wish.build(index)) }
    }

    /// The last changes: what is refused keeps what it had before, which no fresh operator can know.
    pub(crate) fn mend(&mut self) -> Vec<Change> {
        let mut mended = Vec::new();
        for (index, wish) in self.wishes.iter_mut().enumerate() {
            if let Some(wish) = wish.as_mut().filter(|wish| wish.ip_mode == Some("Bogus")) {
                wish.ip_mode = None;
                mended.push(Change::Apply(wish.build(index)));
            }
        }
        mended
    }

    pub(crate) fn random(&mut self) -> &mut Rng {
        &mut self.random
    }

    fn new_wish(&mut self) -> Wish {
        Wish {
            ports: BTreeSet::from([self.port()]),
            load_balancer: true,
            class: None,
            selector: None,
            workload: None,
            ip_mode: None,
            priority_class: None,
            local: false,
        }
    }

    fn port(&mut self) -> (bool, u16) {
        (self.random.bool(), self.ports[self.random.usize(..PORTS)])
    }

    /// Changes one thing; says whether that takes another Service: the class of one cannot be changed.
    fn edit(&mut self, wish: &mut Wish) -> bool {
        match self.random.u8(..9) {
            0 | 1 => drop(wish.ports.insert(self.port())),
            2 if wish.ports.len() > 1 => drop(wish.ports.pop_first()),
            2 | 3 => wish.load_balancer = !wish.load_balancer,
            4 => wish.selector = self.one_of([None, Some("edge"), Some("core")]),
            5 => wish.workload = self.one_of([None, Some("Deployment"), Some("DaemonSet")]),
            6 => wish.ip_mode = self.one_of([None, Some("Proxy"), Some("Bogus")]),
            7 => wish.local = !wish.local,
            _ => {
                wish.priority_class = self.one_of([None, None, Some("system-cluster-critical")]);
                let class = self.one_of([
                    wish.class,
                    Some(akrobateo_core::LOAD_BALANCER_CLASS),
                    Some("example.com/other"),
                ]);
                return std::mem::replace(&mut wish.class, class) != class;
            }
        }
        false
    }

    fn one_of(&mut self, choices: [Option<&'static str>; 3]) -> Option<&'static str> {
        choices[self.random.usize(..3)]
    }
}

impl Wish {
    fn build(&self, index: usize) -> ServiceBuilder {
        let mut built = service(&format!("random-{index}"));
        for &(tcp, port) in &self.ports {
            built = built.port(if tcp { Protocol::Tcp } else { Protocol::Udp }, port, port);
        }
        let selector = self.selector.map(|pool| format!("{POOL_LABEL}={pool}"));
        for (name, value) in [
            (NODE_SELECTOR, selector.as_deref()),
            (WORKLOAD, self.workload),
            (IP_MODE, self.ip_mode),
            (PRIORITY_CLASS, self.priority_class),
        ] {
            built = if let Some(value) = value { built.annotation(name, value) } else { built };
        }
        if !self.load_balancer {
            return built.cluster_ip();
        }
        built = if self.local { built.local() } else { built };
        if let Some(class) = self.class { built.class(class) } else { built }
    }
}
