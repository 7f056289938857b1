# @summary One Ethernet segment over hosts that share nothing but IP
#
# @param config
#   The whole mesh, the same on every host: what `l2mesh check` takes.
# @param interfaces
#   The underlay interfaces that carry it.
# @param flags
#   What else `l2mesh attach` is told on this host, as "--mode tc --node ovh".
# @param package_source
#   The package as a file; without it, the package manager's own.
class l2mesh (
  String $config,
  Array[String[1]] $interfaces,
  String $flags = '',
  Optional[String[1]] $package_source = undef,
) {
  if $package_source {
    package { 'l2mesh':
      ensure   => installed,
      provider => 'dpkg',
      source   => $package_source,
    }
  } else {
    package { 'l2mesh':
      ensure => installed,
    }
  }

  # A running agent watches the file and takes it up by itself, without disturbing what stays.
  file { '/etc/l2mesh/mesh.toml':
    ensure       => file,
    content      => $config,
    owner        => 'root',
    group        => 'root',
    mode         => '0644',
    validate_cmd => '/usr/sbin/l2mesh check --config %',
    require      => Package['l2mesh'],
  }

  file { '/etc/default/l2mesh':
    ensure  => file,
    content => "# Managed by Puppet.\nL2MESH_FLAGS=${flags}\n",
    owner   => 'root',
    group   => 'root',
    mode    => '0644',
    require => Package['l2mesh'],
  }

  $interfaces.each |$interface| {
    # Restarted in place: the kernel goes on forwarding meanwhile.
    service { "l2mesh@${interface}":
      ensure    => running,
      enable    => true,
      provider  => 'systemd',
      require   => File['/etc/l2mesh/mesh.toml'],
      subscribe => File['/etc/default/l2mesh'],
    }
  }
}
