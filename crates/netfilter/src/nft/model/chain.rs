//! Chains, their hooks and rules. Pure.

use super::expr::Expr;
use super::value::Name;

/// A chain of rules. Packets enter a base chain at its hook, and a regular chain by a jump or a goto.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// The chain's name, unique in the table.
    pub name: Name,
    /// The hook and the other properties of a base chain; `None` for a regular chain.
    pub base: Option<BaseChain>,
    /// The rules, in order.
    pub rules: Vec<Rule>,
}

impl Chain {
    /// Creates a regular chain.
    #[must_use]
    pub fn regular(name: impl Into<Name>, rules: Vec<Rule>) -> Self {
        Self { name: name.into(), base: None, rules }
    }

    /// Creates a base chain with the policy "accept".
    #[must_use]
    pub fn base(
        name: impl Into<Name>,
        chain_type: ChainType,
        hook: Hook,
        priority: i32,
        rules: Vec<Rule>,
    ) -> Self {
        let base = BaseChain { chain_type, hook, priority, policy: Policy::Accept };
        Self { name: name.into(), base: Some(base), rules }
    }

    /// Returns true if both chains handle packets in the same way. Ignores counters.
    #[must_use]
    pub fn equals_ignoring_counters(&self, other: &Self) -> bool {
        self.name == other.name && self.base == other.base && self.has_equal_rules(other)
    }

    /// Returns true if both chains have the same rules. Ignores counters.
    #[must_use]
    pub fn has_equal_rules(&self, other: &Self) -> bool {
        self.rules.len() == other.rules.len()
            && self.rules.iter().zip(&other.rules).all(|(rule, other)| rule.equals_ignoring_counters(other))
    }
}

/// The properties of a base chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseChain {
    /// The type.
    pub chain_type: ChainType,
    /// The point in the kernel's packet processing at which the chain runs.
    pub hook: Hook,
    /// The priority in the hook. The kernel runs the chain with the lowest priority first.
    pub priority: i32,
    /// The verdict if no rule has a verdict. The policy can change while the chain exists.
    pub policy: Policy,
}

/// The type of a base chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChainType {
    /// Filters packets; may also set marks and conntrack zones.
    Filter,
    /// Translates addresses. Only the first packet of a flow passes the chain.
    Nat,
    /// A chain in the output hook. If the chain changes the mark of a packet, the kernel routes the packet again.
    Route,
}

impl ChainType {
    /// All types.
    pub const ALL: [Self; 3] = [Self::Filter, Self::Nat, Self::Route];

    /// Returns the name that the kernel uses.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Filter => "filter",
            Self::Nat => "nat",
            Self::Route => "route",
        }
    }
}

/// The point in the kernel's packet processing at which a base chain runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hook {
    /// Packets that arrive, before routing (`NF_INET_PRE_ROUTING`, `linux/netfilter.h`).
    Prerouting,
    /// Packets to this machine (`NF_INET_LOCAL_IN`).
    Input,
    /// Packets that this machine forwards (`NF_INET_FORWARD`).
    Forward,
    /// Packets of this machine's processes (`NF_INET_LOCAL_OUT`).
    Output,
    /// Packets that leave, after routing (`NF_INET_POST_ROUTING`).
    Postrouting,
    /// Frames that network interfaces receive, in family netdev (`NF_NETDEV_INGRESS`).
    Ingress(Vec<Name>),
    /// Frames that network interfaces send, in family netdev (`NF_NETDEV_EGRESS`, Linux 5.16).
    ///
    /// When an interface is deleted, kernels before 6.16 delete the chain too. Later kernels keep the chain for a new
    /// interface of the same name.
    Egress(Vec<Name>),
}

impl Hook {
    /// Returns the names of the interfaces whose frames enter the chain; empty for all interfaces.
    #[must_use]
    pub fn interfaces(&self) -> &[Name] {
        match self {
            Self::Ingress(interfaces) | Self::Egress(interfaces) => interfaces,
            _ => &[],
        }
    }

    /// Returns true if the hook belongs to family netdev.
    #[must_use]
    pub fn is_netdev(&self) -> bool {
        matches!(self, Self::Ingress(_) | Self::Egress(_))
    }
}

/// The verdict of a base chain if no rule has a verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// The packet continues with the next base chain.
    Accept,
    /// The packet is dropped.
    Drop,
}

/// A rule: expressions that are evaluated in order until one does not match.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// The expressions.
    pub expressions: Vec<Expr>,
    /// The comment that the nft program prints.
    pub comment: Option<Name>,
}

impl Rule {
    /// Creates a rule without a comment.
    #[must_use]
    pub fn new(expressions: Vec<Expr>) -> Self {
        Self { expressions, comment: None }
    }

    /// Returns the rule with a comment of at most 250 bytes.
    #[must_use]
    pub fn with_comment(self, comment: impl Into<Name>) -> Self {
        Self { comment: Some(comment.into()), ..self }
    }

    /// Returns true if both rules handle packets in the same way. Ignores counters.
    #[must_use]
    pub fn equals_ignoring_counters(&self, other: &Self) -> bool {
        self.comment == other.comment
            && self.expressions.len() == other.expressions.len()
            && self.expressions.iter().zip(&other.expressions).all(|pair| match pair {
                (Expr::Counter(_), Expr::Counter(_)) => true,
                (expr, other) => expr == other,
            })
    }
}

impl From<Vec<Expr>> for Rule {
    fn from(expressions: Vec<Expr>) -> Self {
        Self::new(expressions)
    }
}
