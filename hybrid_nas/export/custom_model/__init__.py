"""A transformers model of every design. The files are copied beside an export's weights and know nothing of this
package: they import torch and transformers alone."""
