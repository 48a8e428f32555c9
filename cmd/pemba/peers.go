package main

import (
	"context"
	"errors"
	"net"

	"github.com/spf13/pflag"

	"github.com/pembadb/pemba/datastore"
	"github.com/pembadb/pemba/dispatch/peers"
)

// cluster says how a node meets its peers; without an address it has none.
type cluster struct {
	addr          string
	peers         []string
	cert, key, ca string
}

func (c *cluster) add(f *pflag.FlagSet) {
	f.StringVar(&c.addr, "peer-addr", "", "where the other nodes of the cluster reach this one, such as 10.0.0.1:50052")
	withEnv(f, "peer-addr", "PEMBA_PEER_ADDR")
	f.StringSliceVar(&c.peers, "peers", nil, "the nodes of the cluster, HOST:PORT each, this one among them or not; dns:HOST:PORT for all addresses of a name")
	withEnv(f, "peers", "PEMBA_PEERS")
	f.StringVar(&c.cert, "peer-cert", "", "this node's certificate for its peers, a PEM file; read again when it changes")
	withEnv(f, "peer-cert", "PEMBA_PEER_CERT")
	f.StringVar(&c.key, "peer-key", "", "the key of --peer-cert, a PEM file")
	withEnv(f, "peer-key", "PEMBA_PEER_KEY")
	f.StringVar(&c.ca, "peer-ca", "", "the authority that signs the certificates of all nodes, a PEM file")
	withEnv(f, "peer-ca", "PEMBA_PEER_CA")
}

// check refuses what does not make a cluster.
func (c *cluster) check() error {
	switch {
	case c.addr == "" && len(c.peers) == 0 && c.cert == "" && c.key == "" && c.ca == "":
		return nil
	case c.addr == "":
		return usagef("a cluster needs --peer-addr, where the others reach this node")
	case len(c.peers) == 0:
		return usagef("a cluster needs --peers, the addresses of its nodes")
	case (c.cert == "") != (c.key == "") || (c.cert == "") != (c.ca == ""):
		return usagef("--peer-cert, --peer-key and --peer-ca go together")
	}
	if _, _, err := net.SplitHostPort(c.addr); err != nil {
		return usagef("--peer-addr %q is no address to listen on; write HOST:PORT", c.addr)
	}
	if c.cert == "" && !loopback(c.addr) {
		return usagef("without certificates nodes meet on loopback only, and --peer-addr %s is not; give --peer-cert, --peer-key and --peer-ca", c.addr)
	}
	return nil
}

// credentials are how the node knows its peers; nil in plain text.
func (c *cluster) credentials() *peers.Credentials {
	if c.cert == "" {
		return nil
	}
	return &peers.Credentials{Cert: c.cert, Key: c.key, CA: c.ca}
}

// read reads the certificates, to tell at once what is wrong with them.
func (c *cluster) read() error {
	if known := c.credentials(); known != nil {
		return known.Check()
	}
	return nil
}

// meeting is a node's part in its cluster; nil for one without.
type meeting struct {
	ring   *peers.Ring
	server *peers.Server
	listen net.Listener
}

// meet joins the cluster.
func (n *node) meet(c *cluster) (err error) {
	if c.addr == "" {
		return nil
	}
	config := peers.Config{Peers: c.peers, Logger: n.log, Credentials: c.credentials()}
	m := &meeting{}
	if m.listen, err = listenTo("peers", "peer-addr", c.addr); err != nil {
		return err
	}
	if m.ring, err = peers.New(config); err != nil {
		return errors.Join(err, m.listen.Close())
	}
	n.cache.Join(m.ring)
	m.server = peers.NewServer(m.ring, n.cache, func(ctx context.Context, store datastore.StoreID) error {
		s, err := n.keeper.At(ctx, store, datastore.Consistency{})
		if err == nil {
			s.Close()
		}
		return err
	})
	n.meeting = m
	return nil
}

// serve answers the peers until leave.
func (m *meeting) serve() {
	if m != nil {
		go m.server.GRPC().Serve(m.listen)
	}
}

func (m *meeting) leave() {
	if m != nil {
		m.ring.Close()
		m.server.GRPC().Stop()
		m.listen.Close()
	}
}
