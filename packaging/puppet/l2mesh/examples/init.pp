# puppet apply --modulepath packaging/puppet packaging/puppet/l2mesh/examples/init.pp
class { 'l2mesh':
  interfaces     => ['eth0'],
  package_source => '/root/l2mesh.deb',
  config         => epp('l2mesh/mesh.toml.epp', { 'nodes' => { 'a' => '192.0.2.10', 'b' => '192.0.2.11' } }),
}
