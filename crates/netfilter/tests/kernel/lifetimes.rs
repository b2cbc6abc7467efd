//! The elements of dynamic sets keep their lifetimes when they are copied to another set.

use std::num::NonZeroU32;

use netfilter::nft::Transaction;
use netfilter::nft::client::Nftables;
use netfilter::nft::model::{
    DataType, Element, Lifetime, Set, SetDefinition, Table, TableFamily, TableId, Value,
};
use netns_testkit::{Namespace, isolated};

fn table(name: &'static str, elements: Vec<Element>) -> Table {
    let timeout = NonZeroU32::new(60);
    let definition =
        SetDefinition::dynamic(DataType::PORT, Some(DataType::PORT), NonZeroU32::new(100).unwrap(), timeout);
    Table {
        sets: vec![Set::new("clients", definition, elements)],
        ..Table::empty(TableId::new(TableFamily::Inet, name))
    }
}

#[test]
fn copied_elements_keep_their_lifetimes() {
    isolated(|| {
        let element = |key: u8, timeout_millis, remaining_millis| Element {
            lifetime: Some(Box::new(Lifetime { timeout_millis, remaining_millis })),
            ..Element::new(Value::from([0, key])).with_value(Value::from([0, 80]))
        };
        let first_table = table("first", vec![element(1, 0, 50_000), element(2, 40_000, 30_000)]);
        Namespace::new().run(|| {
            let nftables = Nftables::open().unwrap();
            nftables.execute(&Transaction::create(&first_table)).unwrap();
            let elements = nftables.read_elements(&first_table.id, &first_table.sets[0]).unwrap().unwrap();
            let second_table = table("second", elements);
            nftables.execute(&Transaction::create(&second_table)).unwrap();
            let copied_elements =
                nftables.read_elements(&second_table.id, &second_table.sets[0]).unwrap().unwrap();
            let lifetimes: Vec<_> =
                copied_elements.iter().map(|it| **it.lifetime.as_ref().unwrap()).collect();
            let [default, own] = lifetimes[..] else { panic!("{copied_elements:?}") };
            assert!([0, 60_000].contains(&default.timeout_millis) && own.timeout_millis == 40_000);
            assert!((40_000..=50_000).contains(&default.remaining_millis), "{default:?}");
            assert!((20_000..=30_000).contains(&own.remaining_millis), "{own:?}");
        });
    });
}
