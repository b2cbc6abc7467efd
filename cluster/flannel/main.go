// Command flannel connects the pods of the nodes with flannel's VXLAN backend, as flanneld and K3s do it. It contains
// only the parts of flannel that the cluster needs, because flanneld itself needs modules that are not always available.
// NODE_NAME is the name of the node.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"github.com/flannel-io/flannel/pkg/backend"
	_ "github.com/flannel-io/flannel/pkg/backend/vxlan"
	"github.com/flannel-io/flannel/pkg/ipmatch"
	"github.com/flannel-io/flannel/pkg/subnet/kube"
	"github.com/flannel-io/flannel/pkg/trafficmngr/iptables"
)

// flanneld's default interval between two checks of its iptables rules, in seconds.
const iptablesResyncSeconds = 5

var (
	kubeconfig = flag.String("kubeconfig", "", "path of the kubeconfig")
	netConfig  = flag.String("net-config", "", "path of flannel's network configuration")
	device     = flag.String("iface", "", "device of the node that carries the packets between the nodes")
)

func main() {
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "flannel:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	subnets, err := kube.NewSubnetManager(ctx, "", *kubeconfig, "flannel.alpha.coreos.com", *netConfig, true)
	if err != nil {
		return fmt.Errorf("the subnet manager cannot start: %w", err)
	}
	config, err := subnets.GetNetworkConfig(ctx)
	if err != nil {
		return fmt.Errorf("cannot read %s: %w", *netConfig, err)
	}
	stack, err := ipmatch.GetIPFamily(config.EnableIPv4, config.EnableIPv6)
	if err != nil {
		return err
	}
	external, err := ipmatch.LookupExtIface(*device, "", "", stack, ipmatch.PublicIPOpts{})
	if err != nil {
		return fmt.Errorf("cannot use the device %q: %w", *device, err)
	}
	vxlan, err := backend.NewManager(ctx, subnets, external).GetBackend(config.BackendType)
	if err != nil {
		return err
	}
	var backends sync.WaitGroup
	network, err := vxlan.RegisterNetwork(ctx, &backends, config)
	if err != nil {
		return fmt.Errorf("the node cannot join the network: %w", err)
	}
	rules := &iptables.IPTablesManager{}
	if err := rules.Init(ctx); err != nil {
		return fmt.Errorf("iptables does not work: %w", err)
	}
	// The previous networks are equal to the present networks, so flannel does not search for old rules.
	lease := network.Lease()
	err = rules.SetupAndEnsureMasqRules(ctx, config.Network, lease.Subnet, config.Network, config.IPv6Network, lease.IPv6Subnet,
		config.IPv6Network, lease, iptablesResyncSeconds, false)
	if err != nil {
		return fmt.Errorf("cannot add the rules for the packets to other networks: %w", err)
	}
	rules.SetupAndEnsureForwardRules(ctx, config.Network, config.IPv6Network, iptablesResyncSeconds)
	network.Run(ctx)
	backends.Wait()
	return nil
}
