//! Removes the marks from packets that leave the node, if the kernel has no egress hook. Pure.
//!
//! In older kernels, the tunnel's device routes the outer packet by the mark of the inner packet. A packet that enters
//! the device with a mark would therefore enter the device again and again.

use akrobateo_core::Family;
use netfilter::nft::Table;
use netfilter::nft::abi::meta;
use netfilter::nft::model::{Chain, ChainType, Expr, Hook, Reg, Rule, Value};

use super::expressions::{accept, is_output_interface, rule};
use super::steering::rule_that_clamps_segment_size;
use crate::config::NodeConfig;
use crate::marks::OWN_MARK_MASK;
use crate::tunnel;

/// The priority of the chain. The chain runs after the translation of sources, because the translation examines the
/// marks.
const UNMARKING_PRIORITY: i32 = 200;

/// Adds the chain.
pub(super) fn add_unmarking_chain(table: &mut Table, config: &NodeConfig) {
    let base = config.node.marks.own_bits;
    let mut rules = vec![rule([
        &[Expr::Meta { key: meta::KEY_MARK, dreg: Reg(0) }, Expr::and(Reg(0), OWN_MARK_MASK)],
        &[Expr::not_equal(Reg(0), base.to_ne_bytes()), accept()],
    ])];
    if config.needs_tunnel() {
        rules.extend(Family::ALL.map(|family| {
            let clamp_rule = rule_that_clamps_segment_size(config, family);
            rule([&is_output_interface(tunnel::TUNNEL_DEVICE), &clamp_rule.expressions])
        }));
    }
    rules.push(Rule::new(vec![
        Expr::Immediate { dreg: Reg(0), value: Value::from([0; 4]) },
        Expr::SetMeta { key: meta::KEY_MARK, sreg: Reg(0) },
    ]));
    table.chains.push(Chain::base("unmark", ChainType::Filter, Hook::Postrouting, UNMARKING_PRIORITY, rules));
}
