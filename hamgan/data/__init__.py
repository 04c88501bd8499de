"""Training and reference images: embedded photographs, prepared stores, folders of class folders."""
